-- lease: one instance reports what it has used of one limit and takes more in hand. ARGV: the clock, the
-- spec, its bounds, what is known; instance, session; in this session so far granted, used and given back;
-- what it wants beside, what it needs at least; how many it used how long ago in nanoseconds, the last first; how long
-- its lease is; what it let pass in the grace; how much of what it used and granted
-- was without a lease; 1 to
-- forget all use; how much of the use Redis has acknowledged; what it has to leave there; 1 to break a silence; 1 for a
-- limit that is learned; 1 for a window of which the instance keeps what it has in hand, used or not.
-- The answer: time, granted so far, rest, wait, full, grace, what to remember, whether it was new.
return guard(function()
  set_clock(ARGV[1])
  local key, spec = KEYS[1], ARGV[2]
  local st, k = open(key, spec, ARGV[3], ARGV[4], ARGV[20] == '1')
  local id, session = ARGV[5], ARGV[6]
  local g, u, r = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
  local want, need, lasts = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[13])
  local seen, beside, reserve = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[18])
  local keeps = ARGV[21] == '1'
  if ARGV[16] == '1' then
    st.reset, st.seq, st.log, st.b, st.c, st.a = now_s * 1e6 + math.floor(now_ns / 1000), 0, {}, k.idle and 'warm' or 0, 0, NEVER
    k.spent(st, 0)
    k.settle(st)
  end
  local mine
  for i, h in ipairs(st.holders) do
    if h.id == id then
      if h.session == session then
        mine = h
      else -- of a lease that it has lost
        k.take(st, h.out, 0)
        st.held = st.held - h.out
        table.remove(st.holders, i)
      end
      break
    end
  end
  if not mine then
    -- With g above 0 the store has forgotten: what is held is held again.
    local known = tonumber(ARGV[17])
    mine = {id = id, session = session, g = g - math.min(beside, math.max(0, u - known)), u = known, r = r, out = 0, deadline = lasts}
    st.holders[#st.holders + 1] = mine
  end
  if st.reminded then mine.u = math.max(mine.u, tonumber(ARGV[17])) end -- that is in what was known
  -- What was used without a lease counts though the limit be exceeded by it, since what is held may come back.
  -- A bucket that fills smoothly has no room for that.
  beside = math.min(beside, math.max(0, u - mine.u))
  -- Nothing was used before it was here last, but of a window that it keeps.
  local spent, since = u - mine.u - beside, k.log and math.huge or math.max(0, lasts - mine.deadline)
  for n, age in string.gmatch(ARGV[12], '(%d+)/(%d+)') do
    local some = math.min(tonumber(n), spent)
    if some > 0 then
      k.take(st, some, -math.min(tonumber(age), since))
      spent = spent - some
    end
  end
  if spent > 0 then k.take(st, spent, 0) end -- of a report that was lost
  if u < mine.u then k.back(st, mine.u - u) end
  if beside > 0 then k.take(st, k.begin and math.min(beside, math.max(0, k.level(st))) or math.min(beside, k.n), 0) end
  mine.g = math.max(mine.g + beside, g) -- a replica may not have heard of the last
  st.held = st.held - mine.out
  mine.u, mine.r = u, r
  mine.out = math.max(0, mine.g - u - r)
  st.held = st.held + mine.out
  if seen > 0 and type(st.b) == 'number' and k.grace and st.c >= 0 and k.free == 0 then st.c = st.c + seen end

  if ARGV[19] == '1' and k.silence then -- the count stays, and taking it again breaks the silence
    k.back(st, 1)
    k.take(st, 1, 0)
  end

  local free, wait = 0, 0
  if k.grace and need > 0 then
    free = k.grace(st)
    if free > 0 then
      k.begin(st)
      if k.free > 0 then -- what goes free is capped: it is lent like the rest
        local some = math.min(math.max(0, k.free - st.c), math.max(need, math.floor((k.free - st.c) / 4)))
        st.c, free = st.c + some, some > 0 and -some or 0
        st.a = math.max(st.a, math.min(0, math.max(st.a, -k.n * SECOND / k.per_second) + some * SECOND / k.per_second))
      end
    end
  end
  local room = k.level(st) - st.held - reserve
  if free == 0 and room > 0 then
    -- Half of what is left, so that others find something too; but no last crumbs, each a call.
    local part = room * 8 <= k.n - reserve and room or math.floor(room / 2)
    local more = room >= need and math.max(need, math.min(want, part)) or 0 -- a part of it helps nobody
    if more > 0 then
      if k.begin then k.begin(st) end
      mine.g, room = mine.g + more, room - more
      if more <= need and not keeps then -- for a request that waits for it: as good as used
        k.take(st, more, 0)
        mine.u = mine.u + more
      else
        mine.out, st.held = mine.out + more, st.held + more
      end
    end
  end
  if free == 0 then
    local ask = math.max(need, 1)
    if ask > k.n then
      wait = -1
    elseif room < ask then
      wait = k.wait(st, math.min(ask + st.held + reserve, math.max(k.n, ask)))
      if wait == 0 then wait = k.wait(st, k.n) end
      if wait == 0 and k.log then wait = 1 end -- others keep it
    end
  end
  mine.deadline = lasts
  if mine.out == 0 then
    for i, h in ipairs(st.holders) do
      if h == mine and mine.g == 0 then table.remove(st.holders, i) break end
    end
  end
  save(key, st, k)
  return {written(0), whole(mine.g), whole(math.max(0, room)), whole(wait), whole(k.full(st)), whole(free), note(st, k), whole(mine.u)}
end)
