-- A restoration that is over stays as it is, so the first two are disabled then; what has failed can be tried again.

local finished, succeeded = false, false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  finished = finished or (condition.type == "Finished" and condition.status == "True")
  succeeded = succeeded or (condition.type == "Succeeded" and condition.status == "True")
end
local suspended = obj.spec.suspend == true

return {
  suspend = {disabled = finished or suspended, iconClass = "fa fa-fw fa-pause", displayName = "Suspend"},
  resume = {disabled = finished or not suspended, iconClass = "fa fa-fw fa-play", displayName = "Resume"},
  retry = {disabled = succeeded or not finished, iconClass = "fa fa-fw fa-redo", displayName = "Retry as a new restoration"},
}
