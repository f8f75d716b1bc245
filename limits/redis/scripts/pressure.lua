-- pressure: what all instances know of one upstream. ARGV is what one of them knows: its id; of the last
-- violation the stamp (0: a new one), how long ago (-1: there is none), how long the pause lasts, how many in a
-- row, 1 if a request was taken since, the reason; how long ago the pressure was ended by hand (-1: it was not);
-- of the share millionths, how often lowered, how long ago changed, the stamp it was made from, 1 if it is
-- new; what was taken: long, short, 1 if all through, for how long that counts; a probe to claim for so long,
-- 0 for none, -1 to give it back; when the pause ends, by this clock, if that is as it was heard, else 0; by when
-- the call must be made, 0: at any time. All times are milliseconds.
local t = redis.call('TIME')
local now, bad = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000), 0
local HOUR, DAY, ALL = 3600000, 86400000, 1000000
local me = ARGV[1]
local arg = {}
for i = 2, 20 do arg[i] = tonumber(ARGV[i]) or 0 end
if arg[20] > 0 and now > arg[20] then return redis.error_reply('TGLATE') end

local function fresh()
  return {reset = 0, stamp = 0, till = 0, n = 0, proved = 0, by = '-', why = '-',
    share = ALL, times = 0, changed = 0, sstamp = 0, prober = '-', probe = 0, seen = {}}
end

local names = {'reset', 'stamp', 'till', 'n', 'proved', 'share', 'times', 'changed', 'sstamp', 'probe'}

local function read(text)
  local st, field = fresh(), {}
  for f in string.gmatch(text, '[^ ]+') do field[#field + 1] = f end
  if #field ~= 15 or field[1] ~= '2' or #text > 100000 then return nil end
  for i, name in ipairs(names) do
    local f = field[i + 1]
    if not string.match(f, '^%d+$') or #f > 15 then return nil end
    st[name] = tonumber(f)
  end
  st.by, st.why, st.prober = field[12], field[13], field[14]
  for _, at in ipairs({st.reset, st.stamp, st.changed, st.sstamp}) do
    if at > now + HOUR then return nil end
  end
  if st.till > now + 400 * DAY or st.probe > now + DAY or st.share < 1 or st.share > ALL or st.n > 999999 or #st.why > 300 then return nil end
  if field[15] ~= '-' then
    for e in string.gmatch(field[15], '[^,]+') do
      local id, long, short, whole, till = string.match(e, '^([^=]+)=(%d+)/(%d+)/([01])/(%d+)$')
      if not id or #long > 15 or #short > 15 or #till > 15 then return nil end
      if tonumber(till) > now and tonumber(till) < now + 400 * DAY then
        st.seen[#st.seen + 1] = {id = id, long = tonumber(long), short = tonumber(short), whole = tonumber(whole), till = tonumber(till)}
      end
    end
  end
  return st
end

local function written(st)
  local out = {'2'}
  for _, name in ipairs(names) do out[#out + 1] = string.format('%.0f', st[name]) end
  local seen = {}
  for i, s in ipairs(st.seen) do seen[i] = string.format('%s=%.0f/%.0f/%.0f/%.0f', s.id, s.long, s.short, s.whole, s.till) end
  for _, s in ipairs({st.by, st.why, st.prober, #seen > 0 and table.concat(seen, ',') or '-'}) do out[#out + 1] = s end
  return table.concat(out, ' ')
end

local had = redis.pcall('GET', KEYS[1])
local st
if type(had) == 'table' then
  bad, had = 1, nil
elseif had then
  st = read(had)
  if not st then bad = 1 end
end
st = st or fresh()

-- An end by hand makes void what was stamped before it.
if arg[8] >= 0 then
  st.reset = math.max(st.reset, now - arg[8])
  st.prober, st.probe = '-', 0
end
if st.stamp <= st.reset then st.stamp, st.till, st.n, st.proved, st.by, st.why = 0, 0, 0, 0, '-', '-' end
if st.sstamp <= st.reset then st.share, st.times, st.changed, st.sstamp = ALL, 0, 0, 0 end

local own, till = 0, arg[19] > 0 and arg[19] or now + arg[4]
if arg[3] >= 0 then
  local stamp, new = arg[2], arg[2] == 0
  if new then stamp = now - arg[3] end
  if stamp > st.reset and stamp < now + HOUR then
    if stamp > st.stamp then
      if st.till > now and st.proved == 0 then
        till, arg[5] = math.max(st.till, till), math.max(st.n, arg[5])
      end
      st.stamp, st.till, st.n, st.proved, st.by, st.why = stamp, till, arg[5], arg[6], me, ARGV[7]
      if new then st.prober, st.probe = '-', 0 end
    else -- of the same traffic, or known
      if new then stamp = st.stamp end
      st.n = math.max(st.n, arg[5])
      if not new and stamp == st.stamp and arg[6] == 1 then
        st.proved, st.prober, st.probe = 1, '-', 0
      elseif st.proved == 0 then
        st.till = math.max(st.till, arg[4] > 0 and till or 0)
      end
    end
    own = stamp
  end
end

local take, base = false, arg[12]
if st.sstamp == 0 then
  take = arg[9] < ALL and (arg[13] == 1 or math.max(base, now - arg[11]) > st.reset)
else
  take = arg[13] == 1 and (base == st.sstamp or arg[9] < st.share)
end
if take then
  if arg[13] == 1 or base == 0 then base = math.max(now, st.sstamp + 1, st.reset + 1) end
  st.share, st.times, st.changed, st.sstamp = arg[9], arg[10], math.max(0, now - arg[11]), base
end

local others, kept = {long = 0, short = 0, whole = 0}, {}
for _, s in ipairs(st.seen) do
  if s.id ~= me then
    kept[#kept + 1] = s
    others.long, others.short, others.whole = others.long + s.long, others.short + s.short, math.max(others.whole, s.whole)
  end
end
if arg[14] + arg[15] > 0 then kept[#kept + 1] = {id = me, long = arg[14], short = arg[15], whole = arg[16], till = now + arg[17]} end
st.seen = kept

if st.probe <= now then st.prober, st.probe = '-', 0 end
if arg[18] < 0 and st.prober == me then
  st.prober, st.probe = '-', 0
elseif arg[18] > 0 and st.prober == '-' and st.till <= now and st.proved == 0 then
  st.prober, st.probe = me, now + arg[18]
end

local text = written(st)
if text ~= had and text ~= written(fresh()) then
  local keep = math.max(st.till, st.probe, now) - now + (st.share < ALL and 8 or 1) * DAY
  redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', keep))
end
local out = {tostring(bad), st.by, st.why}
for _, n in ipairs({own, st.reset, st.stamp, math.max(0, st.till - now), math.max(0, now - st.stamp), st.n, st.proved,
  st.share, st.times, math.max(0, now - st.changed), st.sstamp,
  math.max(0, st.probe - now), st.prober == me and 1 or 0, others.long, others.short, others.whole, now, st.till}) do
  out[#out + 1] = string.format('%.0f', n)
end
return out
