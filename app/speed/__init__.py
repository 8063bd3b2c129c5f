"""What is here for speed alone. The service does the same without it, and the lesson is elsewhere.

    direct_way          a request that has nothing in it but a key calls its endpoint at once
    one_write           head and body of an answer leave in one system call
    settled_garbage     the collector looks less often, and not through the application's own modules
    resource            what an endpoint works on, given to it without a thread

`docs/performance.md` says what each of them gains.
"""
