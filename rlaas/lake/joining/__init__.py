"""The silver join: the rule (``matching``) and how it is kept up to date at a cost that does not grow with history.

* ``changes``: what is new in a table since a version, and rows of it by their time.
* ``index``: where in time a decision, a step of a session or an outcome lies.
* ``affected``: which decisions a change can touch, and all the rows that say what becomes of them.
* ``silver``: what is written, and what is remembered in the same commit.
* ``updating``: one update, the rebuild, and what happens when somebody else was faster.
"""
