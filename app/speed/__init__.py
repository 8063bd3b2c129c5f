"""Optimizations. The service behaves the same without them, and they teach nothing about caching.

    direct_way          calls the endpoint directly for a request that contains nothing but a key
    one_write           sends head and body of an answer in one system call
    settled_garbage     runs the garbage collector less often, and not over the application's own modules
    resource            passes an endpoint its resource without a thread

`docs/performance.md` says what each of them gains.
"""
