-- Health of an Experiment. Degraded only for what will not heal by itself, Suspended only where the user asked for it:
-- one waiting for Kueue's quota progresses.
local health = {status = "Progressing", message = "Waiting for the controller"}
local status = obj.status or {}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end
local function says(name)
  local condition = conditions[name] or {}
  return condition.message or condition.reason or status.phase or ""
end
if holds("Stalled") then
  return {status = "Degraded", message = says("Stalled")}
end
if holds("Ready") then
  return {status = "Healthy", message = says("Ready")}
end
if obj.spec.suspend == true then
  return {status = "Suspended", message = says("Ready")}
end
health.message = says("Ready")
return health
