"""Torture: the main job is killed again and again, and what it leaves behind is checked.

What judges shares no code with what is judged: an import contract holds it to that. ``audit.py`` is
where to begin: from a broker and some state directories to a verdict.
"""
