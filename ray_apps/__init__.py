"""Entry points for Ray: ``serve run``, ``ray job submit``. They hold no logic."""
