-- beat: an instance says that it is there. The answer: how many are, 0 if the key holds something else.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local set = redis.pcall('ZADD', KEYS[1], now, ARGV[1])
if type(set) == 'table' then
  if string.find(set.err, 'WRONGTYPE', 1, true) then return {0} end
  return redis.error_reply(set.err)
end
if ARGV[3] == '1' then redis.call('ZREM', KEYS[1], ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 60000)
return {redis.call('ZCARD', KEYS[1])}
