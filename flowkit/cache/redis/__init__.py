"""The cache in Redis or Valkey, for several machines."""

from flowkit.cache.redis.cache import RedisCache

__all__ = ["RedisCache"]
