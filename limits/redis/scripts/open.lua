-- add adds to st what is remembered, n, beyond what both have in common. Each may have been begun from another state
-- and that from another; where st has nothing of all of them, it may have the same uses from elsewhere.
local function add(st, k, n, from)
  table.insert(from, 1, n)
  for i, m in ipairs(from) do
    for _, was in ipairs(st.bases) do
      if was.epoch == m.epoch and was.of == n.of then
        if m.seq > was.seq then
          k.merge(st, m, was)
          was.seq, was.a, was.b = m.seq, m.a, m.b
        end
        for above = i - 1, 1, -1 do
          k.merge(st, from[above], from[above + 1])
          table.insert(st.bases, 1, from[above])
        end
        st.bases[BASES + 1] = nil
        return
      end
    end
  end
  k.merge(st, n, #st.bases > 0 and n or nil)
  table.insert(st.bases, 1, n)
  st.bases[BASES + 1] = nil
end

-- What was in hand when the store lost a key is presumed to be in hand still, by an entry of its own: whoever comes
-- with a part of it takes that over, and after three seconds, as long as a lease is used, it is gone.
local PRESUMED, UNHEARD = '?', 3 * SECOND

local function presume(st, k, n)
  if n == 0 then return end
  st.holders[1] = {id = PRESUMED, session = '0', n = 0, g = n, u = 0, r = 0, o = 0, deadline = UNHEARD}
  if k.keeps then st.b = math.max(0, st.b - n) end -- where a note has what is in hand with what was used
end

-- known is what the caller remembers: "reset epoch seq a b c bases hands". Where the store has its entry, that is in there;
-- if the entry is older than the caller has heard, the store is that of a replica that never heard, or from a disk,
-- and what was reported since is just reported again. A key that the store has lost begins a new epoch from what the
-- first to come remembers, its base. What the next ones remember beyond that is added, once; so nothing that was told
-- before counts twice, and nothing that was told since is lost. Who comes with a note of another epoch is in the key
-- as far as it was acknowledged.
local function remember(st, k, spec, known, id, session, held)
  if st and id and holder(st, id, session) then return st end
  local reset, epoch, seq, a, b, c, from, hands = string.match(known, '^(%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%d+)$')
  local n, of = state(spec, a, b, c), string.sub(spec, 1, 1)
  n.of, n.reset, n.epoch, n.seq = of, tonumber(reset), tonumber(epoch), tonumber(seq)
  from = bases(from)
  local fresh = now_s * 1e6 + math.floor(now_ns / 1000)
  if not st then
    st = {a = n.a, b = n.b, c = n.c, log = {}, reset = n.reset, seq = n.seq, spec = spec, holders = {}, bases = {}}
    st.epoch, st.news, st.begun = math.max(fresh, n.epoch + 1), n.seq > 0, true
    if st.news then
      table.insert(from, 1, n)
      st.bases, from[BASES + 1] = from, nil
      presume(st, k, tonumber(hands))
    end
    return st
  end
  if n.reset < st.reset or n.seq == 0 then return st end
  local same = n.reset == st.reset and n.epoch == st.epoch
  if same and (held == 1 or n.seq <= st.seq and held ~= 2) then return st end
  st.news = true
  if string.sub(st.spec, 1, 1) ~= of then return st end
  if n.reset > st.reset then
    st.a, st.b, st.c, st.log, st.reset = n.a, n.b, n.c, {}, n.reset
  elseif n.epoch < st.epoch then
    add(st, k, n, from)
    return st
  else -- later than all that the store has
    k.merge(st, n, n)
  end
  st.epoch, st.begun, st.seq = math.max(fresh, n.epoch + 1, st.epoch + 1), true, math.max(n.seq, st.seq)
  table.insert(from, 1, n)
  st.bases, from[BASES + 1] = from, nil
  return st
end

-- follow carries over what was used of the limit that was in force to k, which follows it, in proportion. After a
-- raise there is one at once, but not where the limit is learned: it may go up and down.
local function follow(st, k, spec, bounds, learned)
  local was = st.spec
  local old = kind(was, string.sub(was, 1, 1) == 'c' and bounds or nil)
  old.settle(st)
  st.spec = spec
  local fixed = string.match(was, '^c:%d+(.*)$')
  if fixed and fixed == string.match(spec, '^c:%d+(.*)$') and not string.find(spec, 'q', 1, true) then
    return -- a fixed window keeps its count
  end
  if st.b == 'cold' and k.warms then
    st.a = NEVER
    return
  end
  local used = math.min(math.max(old.n - old.level(st), 0), old.n)
  if st.a == NEVER and #st.log == 0 then used = 0 end
  local carried, peak = math.ceil(used / old.n * k.n), 0
  if not k.idle then -- a bucket refills anyway
    local times = old.period == k.period and 1 or k.period / (old.period or old.n / old.per_second * SECOND)
    if not old.idle then peak = math.ceil(st.c * times) end
    if used > 0 and carried == k.n then
      peak = math.max(peak, math.ceil(old.n * times))
      if k.n > peak and not learned then carried, peak = carried - 1, k.n end
    end
  end
  st.b, st.c, st.log, st.a = 0, 0, {}, NEVER
  k.spent(st, carried)
  if not k.idle then st.c = math.min(peak, MAX) end
end

-- expire takes for used what those had in hand whose lease is over. st.held is what the others have.
local function expire(st, k)
  st.held = 0
  local live = {}
  for _, h in ipairs(st.holders) do
    h.out = math.max(0, h.g - h.u - h.r)
    if not h.over and h.deadline <= 0 and h.id ~= PRESUMED then
      if h.out > 0 then k.take(st, h.out, math.max(h.deadline, -SECOND)) end -- whoever held it may have used it
      h.u, h.out, h.over, h.deadline = h.u + h.out, 0, true, k.from and 60 * SECOND or 0 -- and may tell yet how much
    end
    if h.deadline > 0 then
      live[#live + 1] = h
      st.held = st.held + h.out
    end
  end
  st.holders = live
  if k.silence and st.held > 0 and st.b > 0 then st.a = math.max(st.a, 0) end
end

-- open makes a state ready to decide by: under the limit that is in force now, at this instant.
local function open(key, spec, bounds, known, learned, id, session, held)
  if bounds == '-' then
    bounds = nil
  else
    local b = split(bounds, ',')
    bounds = {instant(b[1]), instant(b[2]), instant(b[3]), instant(b[4])}
  end
  local k = kind(spec, bounds)
  local st = remember(load(key), k, spec, known, id, session, held)
  if st.spec ~= spec then follow(st, k, spec, bounds, learned) end
  k.settle(st)
  expire(st, k)
  return st, k
end

-- guard turns what is wrong with a value into an error reply that names it.
local function guard(f)
  local ok, answer = pcall(f)
  if ok then return answer end
  if type(answer) == 'table' then answer = answer.err or 'TGCORRUPT' end
  if string.sub(answer, 1, 2) ~= 'TG' then answer = 'TGCORRUPT ' .. answer end
  return redis.error_reply(answer)
end
