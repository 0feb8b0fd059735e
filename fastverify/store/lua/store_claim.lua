#!lua flags=allow-oom
-- A session service takes up a store: its number of shards is fixed by the first, the longest access lifetime only grows.
-- KEYS[1] root tag. ARGV: shards wanted, access lifetime (s). Reply: shards, longest access lifetime (s).
-- Repeatable.
local meta = KEYS[1] .. ':meta'
redis.call('HSETNX', meta, 'shards', ARGV[1])
local longest = tonumber(redis.call('HGET', meta, 'longest') or 0)
if tonumber(ARGV[2]) > longest then
  longest = tonumber(ARGV[2])
  redis.call('HSET', meta, 'longest', longest)
end
return { tonumber(redis.call('HGET', meta, 'shards')), longest }
