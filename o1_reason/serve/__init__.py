"""An OpenAI-compatible endpoint over the reasoner: ``o1-reason serve``.

    server    checks the address and the keys, runs uvicorn, shuts down with grace
    app       routes; who may ask, and how much at once
    reply     one chat completion, streamed or whole; ends its search when the client goes away
    desk      admits, runs, counts and cancels searches
    story     what a search shows of itself while it runs
    wire      requests, replies and errors as OpenAI's API has them
    models    what is served under which name, and what a request may change of it
    metrics   counters for Prometheus

Needs FastAPI and uvicorn: ``pip install 'o1-reason[serve]'``.
"""
