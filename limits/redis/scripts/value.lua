-- What is in a key, and what of it an instance remembers.

local function warmth(text)
  if text == 'cold' or text == 'warm' then return text end
  return instant(text)
end

local function state(spec, a, b, c)
  local st = {a = instant(a), b = 0, c = 0, log = {}}
  if string.sub(spec, 1, 1) == 'g' then
    st.b, st.c = warmth(b), number(c)
  else
    st.b, st.c = count(b), count(c)
  end
  return st
end

local BASES = 4 -- that a key remembers

-- bases reads what a key was begun from when the store had lost it, the last first.
local function bases(text)
  local all = {}
  if text == '-' then return all end
  for _, e in ipairs(split(text, ',')) do
    local of, epoch, seq, a, b = string.match(e, '^(%l)/(%d+)/(%d+)/([^/]+)/([^/]+)$')
    if not of then corrupt('base') end
    local was = state(of, a, b, '0')
    was.of, was.epoch, was.seq = of, count(epoch), count(seq)
    all[#all + 1] = was
  end
  if #all > BASES then corrupt('bases') end
  return all
end

-- load reads a key: "2 reset epoch seq spec a b c log bases holders".
local function load(key)
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then corrupt('type') end
  if not v then return nil end
  local reset, epoch, seq, spec, a, b, c, log, base, held =
    string.match(v, '^2 (%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not reset then corrupt('value') end
  local st = state(spec, a, b, c)
  st.reset, st.epoch, st.seq, st.spec, st.holders = count(reset), count(epoch), count(seq), spec, {}
  if log ~= '-' then
    local last = NEVER
    for _, e in ipairs(split(log, ',')) do
      local t, n = string.match(e, '^([^/]+)/(%d+)$')
      if not t then corrupt('log') end
      st.log[#st.log + 1] = {math.max(last, instant(t)), count(n)}
      last = st.log[#st.log][1]
    end
  end
  st.bases = bases(base)
  if held ~= '-' then
    for _, e in ipairs(split(held, ',')) do
      local id, session, n, g, u, r, o, over, deadline = string.match(e, '^([^=]+)=(%d+)/(%d+)/(%d+)/(%-?%d+)/(%d+)/(%-?%d+)/(x?)([^/]+)$')
      if not id then corrupt('holder') end
      st.holders[#st.holders + 1] = {id = id, session = session, n = count(n),
        g = number(g), u = number(u), r = number(r), o = number(o), over = over == 'x', deadline = instant(deadline)}
    end
  end
  return st
end

local function holder(st, id, session)
  for _, h in ipairs(st.holders) do
    if h.id == id and h.session == session then return h end
  end
end

local function texts(st, k)
  local a, b = st.a, st.b
  if k.log then
    a, b = NEVER, 0
    for _, e in ipairs(st.log) do a, b = e[1], b + e[2] end
  end
  if type(b) == 'number' then
    b = k.warms and written(b) or string.format('%.0f', b)
  end
  return written(a), b, string.format('%.0f', st.c)
end

local function begun(st)
  local all = {}
  for i, was in ipairs(st.bases) do
    local b = was.b
    if type(b) == 'number' then b = was.of == 'g' and written(b) or string.format('%.0f', b) end
    all[i] = string.format('%s/%.0f/%.0f/%s/%s', was.of, was.epoch, was.seq, written(was.a), b)
  end
  return #all > 0 and table.concat(all, ',') or '-'
end

local function save(key, st, k)
  st.seq = st.seq + 1
  local a, b, c = texts(st, k)
  local log, held, last = {}, {}, 0
  for i, e in ipairs(st.log) do log[i] = written(e[1]) .. '/' .. string.format('%.0f', e[2]) end
  for i, h in ipairs(st.holders) do
    held[i] = string.format('%s=%s/%.0f/%.0f/%.0f/%.0f/%.0f/%s%s', h.id, h.session,
      h.n, h.g, h.u, h.r, h.o, h.over and 'x' or '', written(h.deadline))
    if not h.over then last = math.max(last, h.deadline) end
  end
  local keep = (k.keep or k.full)(st)
  if last > 0 then keep = math.max(keep, last + (k.log and k.full(st) or 0)) + SECOND end
  keep = math.floor(math.min(keep, 2e18) / 1e6 * pace) + 1000
  redis.call('SET', key, string.format('2 %.0f %.0f %.0f %s %s %s %s %s %s %s', st.reset, st.epoch, st.seq, st.spec, a, b, c,
    #log > 0 and table.concat(log, ',') or '-', begun(st), #held > 0 and table.concat(held, ',') or '-'), 'PX', string.format('%.0f', keep))
end

-- What the caller is to remember, and to tell next time.
local function note(st, k)
  local a, b, c = texts(st, k)
  if k.keeps and st.held > 0 then -- which may have been used of late
    if k.log then a = written(0) end
    b = string.format('%.0f', math.min(k.n, k.n - k.level(st) + st.held))
  end
  return table.concat({whole(st.reset), whole(st.epoch), whole(st.seq), a, b, c, begun(st), whole(math.max(0, st.held))}, ' ')
end
