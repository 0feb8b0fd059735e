#!lua flags=no-writes
-- The key ring, and what every process must know of the store. KEYS[1] root tag. ARGV: 1 to include the sealed private keys.
-- Reply: shards or 0, longest access lifetime (s), newest kid or '', now (ms), {algorithm, kid, ...} of the static keys in use, then
--        {kid, public part, sealed private part or ''}...
-- include: time
local tag = KEYS[1]
local meta, settings, static = redis.call('HGETALL', tag .. ':meta'), {}, {}
for i = 1, #meta, 2 do
  settings[meta[i]] = meta[i + 1]
  local algorithm = string.match(meta[i], '^static:(.+)$')
  if algorithm then
    static[#static + 1] = algorithm
    static[#static + 1] = meta[i + 1]
  end
end
local reply = { tonumber(settings.shards or 0), tonumber(settings.longest or 0), settings.newest or '', now_ms(), static }
for _, hash in ipairs({ ':keys', ':static' }) do
  local public = redis.call('HGETALL', tag .. hash)
  for i = 1, #public, 2 do
    local private = ARGV[1] == '1' and redis.call('HGET', tag .. ':private', public[i]) or ''
    reply[#reply + 1] = { public[i], public[i + 1], private or '' }
  end
end
return reply
