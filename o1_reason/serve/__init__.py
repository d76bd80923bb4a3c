"""OpenAI-compatible endpoints over the reasoner: ``o1-reason serve``.

    server    checks the address and the keys, runs uvicorn, shuts down with grace
    app       routes, and what a request asks for
    gate      who may ask: keys, hosts, sizes
    reply     one request under way, streamed or whole; ends its search when the client goes away
    stream    server-sent events, and work that ends with its client
    desk      admits, runs, counts and cancels searches
    story     what a search shows of itself while it runs
    wire      requests, replies and errors as OpenAI's chat completions have them
    responses requests and replies as OpenAI's Responses API has them
    lives     searches to look at in a browser
    models    what is served under which name, and what a request may change of it
    metrics   counters for Prometheus

Needs FastAPI and uvicorn: ``pip install 'o1-reason[serve]'``.
"""
