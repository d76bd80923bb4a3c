"""Training of the embedded models: traces -> policy -> Monte-Carlo rollouts -> process reward model.

    python -m o1_reason_embedded.train --help

needs PyTorch (``pip install "o1-reason[train]"``); nothing here is imported at run time.
"""
