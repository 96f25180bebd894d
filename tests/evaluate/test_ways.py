"""The table of tasks times models."""

from tests import tasks_page


def test_the_page_of_the_docs_is_what_the_models_say():
    """If this fails, ``python -m tests.tasks_page`` writes the page anew."""
    assert tasks_page.PAGE.read_text(encoding="utf-8") == tasks_page.page(tasks_page.models())
