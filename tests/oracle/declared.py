"""What the apps of several kinds declare in the same way."""

from __future__ import annotations

from engine import App, Contract


def new_app(topology, config):
    """Return an app of its own for a case."""
    return App(f"oracle-{topology}-{config['case']}".replace("_", "-"))


def topic(app, name, **options):
    """Declare a topic of any JSON, keyed by text, that may hold nulls."""
    return app.topic(
        name, contract=Contract.of(name, None, key_type=str, null_values=True), **options
    )
