-- Ready: a Job made from the profile is well-formed. Until the operator has said so about this very generation, a sync
-- wave must not go on to the restorations that use it.

local status = obj.status or {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" and status.observedGeneration == obj.metadata.generation then
    if condition.status == "True" then
      return {status = "Healthy", message = condition.reason}
    end
    return {status = "Degraded", message = condition.reason .. ": " .. condition.message}
  end
end
return {status = "Progressing", message = "The operator has not looked at this generation yet"}
