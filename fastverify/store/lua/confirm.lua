#!lua
-- A gateway has seen access tokens of these generations: they were delivered (rotation.md, "Confirmation").
-- KEYS[1] shard tag. ARGV: handle and generation of each. Reply: the handles whose generation this primary did not know of.
-- Repeatable.
-- include: time
-- include: text
-- include: record
local tag, now, adopted = KEYS[1], now_ms(), {}
for i = 1, #ARGV, 2 do
  local record, g = tag .. ':s:' .. ARGV[i], tonumber(ARGV[i + 1])
  if alive(tag, record, now) then
    local G, conf_at = unpack(redis.call('HMGET', record, 'G', 'conf_at'))
    if g > tonumber(G) then
      -- As step 2 of a refresh: it was issued by a primary before this one, whose write is lost.
      redis.call('HSET', record, 'G', whole(g), 'handed_at', whole(now), 'conf_at', whole(now))
      adopted[#adopted + 1] = ARGV[i]
    elseif g == tonumber(G) and not conf_at then
      redis.call('HSET', record, 'conf_at', whole(now))
    end
  end
end
return adopted
