-- What `kubectl vr retry` does: the failed restoration stays as the record of what happened, and a new one beside it, with
-- the same spec, goes on from the finished segments. Labels by which Argo CD, Flux or Helm know what is theirs are left
-- out: the copy is not in git, and pruning would delete it.
--
-- The name is always the next one: clip, clip-r2, clip-r3. So a second click starts nothing twice: that name is taken.

local longest_name = 253
local alphabet = {
  "-", ".", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l",
  "m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z",
}

-- The letters of a name, in order. Argo CD gives actions no string functions, but strings can be compared: the next letter
-- is the last of the alphabet with which what is known does not yet come after the name.
local function spelled(name)
  local known, letters = "", {}
  for place = 1, #name do
    for _, letter in ipairs(alphabet) do
      if known .. letter > name then
        break
      end
      letters[place] = letter
    end
    known = known .. letters[place]
  end
  return letters
end

local function next_name(name)
  local letters, stem, number = spelled(name), #name, 2
  local last = #name
  while tonumber(letters[last]) ~= nil do
    last = last - 1
  end
  if last < #name and last > 2 and letters[last - 1] == "-" and letters[last] == "r" then
    number = tonumber(table.concat(letters, "", last + 1)) + 1
    stem = last - 2
  end
  local suffix = "-r" .. number
  if stem > longest_name - #suffix then
    stem = longest_name - #suffix
  end
  while letters[stem] == "-" or letters[stem] == "." do
    stem = stem - 1
  end
  return table.concat(letters, "", 1, stem) .. suffix
end

-- Whether a label or annotation is of that domain: "0" is what follows "/".
local function is_of(domain, key)
  return key > domain .. "/" and key < domain .. "0"
end

local function is_an_owners(label)
  for _, domain in ipairs({"argocd.argoproj.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io", "helm.sh"}) do
    if is_of(domain, label) then
      return true
    end
  end
  return label == "app.kubernetes.io/instance" or label == "app.kubernetes.io/managed-by"
end

-- Without empty tables, which would arrive as empty lists; an object without fields means the same as none.
local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local copied = {}
  for key, item in pairs(value) do
    if type(item) ~= "table" or next(item) ~= nil then
      copied[key] = copy(item)
    end
  end
  return copied
end

local finished, succeeded = false, false
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  finished = finished or (condition.type == "Finished" and condition.status == "True")
  succeeded = succeeded or (condition.type == "Succeeded" and condition.status == "True")
end
if succeeded or not finished then
  error(obj.metadata.name .. " has not failed: there is nothing to try again")
end

local old, labels, spec = obj.metadata, {}, copy(obj.spec)
local annotations = {["videorestoration.dev/retry-of"] = old.name}
for key, value in pairs(old.annotations or {}) do
  if is_of("kueue.x-k8s.io", key) then
    annotations[key] = value
  end
end
for key, value in pairs(old.labels or {}) do
  if not is_an_owners(key) then
    labels[key] = value
  end
end
spec.suspend = nil

local new = {apiVersion = obj.apiVersion, kind = obj.kind, spec = spec}
new.metadata = {name = next_name(old.name), namespace = old.namespace, annotations = annotations}
if next(labels) ~= nil then
  new.metadata.labels = labels
end
return {{operation = "create", resource = new}}
