#!lua flags=allow-oom
-- What came after the entry that a follower stands on. Reporting where it stands is also the fence: a primary that cannot write is
-- not believed.
-- KEYS[1] shard tag. ARGV: follower id, seq, its nonce, most entries to return, ms for which the follower serves without a poll.
-- Reply: 'DIVERGED', or 'OK' then seq, nonce, window, entry of each.
-- Repeatable.
-- include: time
-- include: text
local tag, id, seq, nonce, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
redis.call('HSET', tag .. ':gw', id, whole(seq) .. ' ' .. ARGV[5] .. ' ' .. whole(now_ms()))
local items = redis.call('XRANGE', tag .. ':log', whole(seq) .. '-0', '+', 'COUNT', most + 1)
local reply = { 'OK' }
for i, item in ipairs(items) do
  local fields = item[2]
  if item[1] ~= whole(seq + i - 1) .. '-0' then
    return { 'DIVERGED' }
  elseif i == 1 then
    if fields[#fields - 2] ~= nonce then
      return { 'DIVERGED' }
    end
  else
    for _, value in ipairs({ whole(seq + i - 1), fields[6], fields[4], fields[2] }) do
      reply[#reply + 1] = value
    end
  end
end
return #items > 0 and reply or { 'DIVERGED' }
