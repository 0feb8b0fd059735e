#!lua flags=allow-oom
-- What came after the entry that a follower stands on. Reporting where it stands is also the fence: a primary that cannot write is
-- not believed. One that stands in another history has applied nothing of this one, whatever its number.
-- KEYS[1] shard tag. ARGV: follower id, seq, its nonce, most entries to return, ms for which the follower serves without a poll.
-- Reply: 'DIVERGED', or 'OK' then seq, nonce, window, entry of each.
-- Repeatable.
-- include: time
-- include: text
local tag, id, seq, nonce, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local items = redis.call('XRANGE', tag .. ':log', whole(seq) .. '-0', '+', 'COUNT', most + 1)
local first = items[1]
local agrees = first and first[1] == whole(seq) .. '-0' and first[2][#first[2] - 2] == nonce
redis.call('HSET', tag .. ':gw', id, whole(agrees and seq or 0) .. ' ' .. ARGV[5] .. ' ' .. whole(now_ms()))
if not agrees then
  return { 'DIVERGED' }
end
local reply = { 'OK' }
for i = 2, #items do
  local id_of, fields = items[i][1], items[i][2]
  if id_of ~= whole(seq + i - 1) .. '-0' then
    return { 'DIVERGED' }
  end
  for _, value in ipairs({ whole(seq + i - 1), fields[6], fields[4], fields[2] }) do
    reply[#reply + 1] = value
  end
end
return reply
