-- take: all limits of a request, or none. ARGV: the clock, 'look' to take nothing whatever comes out,
-- then for each key its spec, bounds, what is known, n (0 looks, below 0 gives back), 1 for a shadow, and the
-- group, 0 for none: groups refuse only together, and one that would refuse alone takes nothing.
-- The answer is 1 or 0, the time, and for each key: allowed, remaining, wait, full, what to remember.
local FIELDS = 6

local look = ARGV[2] == 'look'

-- decide answers about one key, and takes from its state. Who looks is told what there is before that.
local function decide(st, k, n)
  local before = k.level(st) - st.held
  local ask = math.max(n, 1)
  if ask > k.n then return false, before, -1 end
  if n < 0 then
    k.back(st, -n)
    return true, k.level(st) - st.held, 0
  end
  local grace = k.grace and k.grace(st) or 0
  if grace > 0 and (k.free == 0 or st.c + ask <= k.free) then
    local left = k.free == 0 and MAX or k.free - st.c
    if n > 0 then
      k.begin(st)
      st.c = st.c + n
      st.a = math.max(st.a, math.min(0, math.max(st.a, -k.n * SECOND / k.per_second) + n * SECOND / k.per_second))
      if k.free > 0 and not look then left = left - n end
    end
    return true, left, 0
  end
  if before >= ask then
    if n > 0 then k.take(st, n, 0) end
    return true, look and before or before - n, 0
  end
  local wait = k.wait(st, ask + st.held)
  if wait == 0 then wait = k.wait(st, k.n) end
  return false, before, math.max(wait, 1)
end

-- try decides about all keys, those of dropped groups only looked at. It returns the groups that refuse, too.
local function try(dropped)
  local opened, answer, admitted, groups, refusing = {}, {}, true, {}, {}
  for i, key in ipairs(KEYS) do
    local at = 2 + (i - 1) * FIELDS
    local spec, n, group = ARGV[at + 1], tonumber(ARGV[at + 4]), ARGV[at + 6]
    local o = opened[key]
    if not o then
      local st, k = open(key, spec, ARGV[at + 2], ARGV[at + 3])
      o = {st = st, k = k, key = key}
      opened[key] = o
      opened[#opened + 1] = o
    end
    if dropped[group] then n = 0 end
    local full = look and o.k.full(o.st)
    local allowed, left, wait = decide(o.st, o.k, n)
    if group ~= '0' then groups[group] = true end
    if not allowed and ARGV[at + 5] ~= '1' and not dropped[group] then
      admitted = false
      refusing[group] = true
    end
    answer[#answer + 1] = {allowed and 1 or 0, whole(math.max(0, left)), whole(wait), whole(full or o.k.full(o.st)), o}
  end
  local stands = next(groups) == nil
  for g in pairs(groups) do stands = stands or not refusing[g] and not dropped[g] end
  return {opened = opened, answer = answer, admitted = admitted, refusing = refusing, relief = stands}
end

return guard(function()
  set_clock(ARGV[1])
  local dropped = {}
  local r = try(dropped)
  while not r.admitted and r.relief and not r.refusing['0'] do
    for g in pairs(r.refusing) do dropped[g] = true end
    local again = try(dropped)
    if not again.relief then break end -- all refuse: so does the request
    r = again
  end
  if r.admitted and not look then
    for _, o in ipairs(r.opened) do save(o.key, o.st, o.k) end
  else -- that the clock was set back is noted once, by whoever sees it first
    for i, key in ipairs(KEYS) do
      local at = 2 + (i - 1) * FIELDS
      if r.opened[key].st.back then save(key, open(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])) end
    end
  end
  local out = {r.admitted and 1 or 0, written(0)}
  for _, e in ipairs(r.answer) do
    local remembered = r.admitted and not (look and e[5].st.begun) and note(e[5].st, e[5].k) or '' -- else it is not kept
    for _, v in ipairs({e[1], e[2], e[3], e[4], remembered}) do out[#out + 1] = v end
  end
  return out
end)
