-- A restoration that is over stays as it is, so both are disabled then.

local finished = false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "Finished" and condition.status == "True" then
    finished = true
  end
end
local suspended = obj.spec.suspend == true

return {
  suspend = {disabled = finished or suspended, iconClass = "fa fa-fw fa-pause", displayName = "Suspend"},
  resume = {disabled = finished or not suspended, iconClass = "fa fa-fw fa-play", displayName = "Resume"},
}
