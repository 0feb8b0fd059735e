#!lua flags=allow-oom
-- Writes a revocation entry that ends no session by itself: of an access token, of a key, or of all that were issued up to a time.
-- KEYS[1] shard tag. ARGV: entry life (s), nonce, entry. Reply: entry, its sequence number.
-- Repeatable.
-- include: time
-- include: blacklist
local tag, now = KEYS[1], now_ms()
local seq = blacklist(tag, { { ARGV[3], tonumber(ARGV[1]) } }, ARGV[2], now)
announce(tag)
return { ARGV[3], seq }
