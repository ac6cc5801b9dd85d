-- What the conditions say, and nothing else: they are the contract, `phase` is a word for people.
--
--   Finished=True    Healthy or Degraded, as Succeeded says; it stays so, whatever happens later
--   Suspended=True   Suspended: by spec.suspend. Waiting in a queue is Progressing
--   Stalled=True     Degraded: somebody has to act. Healthy again by itself once that is done
--   otherwise        Progressing, with the reason of whatever it waits for
--
-- A status of an older spec (or none yet) says nothing about this one: Progressing, or a sync wave would go on too early.

local status = obj.status or {}

local function condition(kind)
  for _, item in ipairs(status.conditions or {}) do
    if item.type == kind then
      return item
    end
  end
  return {status = "Unknown", reason = "", message = ""}
end

-- "Reason: message", or the one that there is.
local function words(item)
  local reason, message = item.reason or "", item.message or ""
  if message == "" then
    return reason
  end
  if reason == "" then
    return message
  end
  return reason .. ": " .. message
end

local function progress()
  local text = status.phase or "Pending"
  local summary = (status.progress or {}).summary
  if summary ~= nil and summary ~= "" then
    text = text .. " " .. summary
  end
  for _, kind in ipairs({"Accepted", "Scheduled"}) do
    local waiting = condition(kind)
    if waiting.status == "False" then
      return text .. "; " .. words(waiting)
    end
  end
  return text
end

if status.conditions == nil then
  return {status = "Progressing", message = "The operator has not looked at it yet"}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not looked at the latest change yet"}
end

local finished, succeeded = condition("Finished"), condition("Succeeded")
if finished.status == "True" then
  if succeeded.status == "True" then
    return {status = "Healthy", message = words(succeeded)}
  end
  return {status = "Degraded", message = words(succeeded)}
end
if condition("Suspended").status == "True" then
  return {status = "Suspended", message = "Suspended by spec.suspend; finished segments are kept"}
end
local stalled = condition("Stalled")
if stalled.status == "True" then
  return {status = "Degraded", message = words(stalled)}
end
return {status = "Progressing", message = progress()}
