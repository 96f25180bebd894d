"""What a reader of the server's page does in a browser."""

from __future__ import annotations

from pathlib import Path

COLOUR = "what color?"


class Page:
    """The page as its reader sees it.

    Args:
        browser: that of :func:`tests.browser.browse`.
        address: of the server.
    """

    def __init__(self, browser, address: str):
        self.browser = browser
        browser.get(f"{address}/")

    def must_list(self) -> None:
        """Wait until the models are listed."""
        self.until("the models are listed", lambda: self.all("#model option"))

    def all(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def until(self, what: str, found):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 120, poll_frequency=0.02).until(lambda _: found(), f"never: {what}")

    def choose(self, model: str) -> None:
        """Choose a model, as an arrow key does."""
        from selenium.webdriver.support.ui import Select

        Select(self.one("#model")).select_by_value(model)

    def add(self, image: Path, answer: str, question: str = COLOUR) -> None:
        """Add an example."""
        self.one("#add").click()
        card = self.all("#cards .card")[-1]
        card.find_element("css selector", "input[type=file]").send_keys(str(image))
        field = card.find_element("css selector", ".question")
        field.clear()
        field.send_keys(question)
        card.find_element("css selector", ".answer").send_keys(answer)
        self.until("the image is shown", lambda: card.find_element("css selector", ".drop img").is_displayed())

    def question(self, image: Path, text: str = COLOUR) -> None:
        """Fill in the question."""
        self.one("#query-image input").send_keys(str(image))
        self.one("#question").send_keys(text)
        self.until("the image is shown", lambda: self.one("#query-image .drop img").is_displayed())

    def press(self, button: str) -> None:
        """Press a button, and wait for the reply."""
        self.one(f"#{button}").click()
        self.until("the reply is complete", lambda: not self.one("#stop").is_displayed())
        error = self.one("#error").text
        assert not error, error

    @property
    def answers(self) -> list[str]:
        """The answers of the examples, in their order."""
        return [field.get_attribute("value") for field in self.all("#cards .answer")]

    def copied(self, button: str) -> str:
        """What a button puts on the clipboard."""
        self.one(f"#{button}").click()
        self.until("the program is copied", lambda: self.one("#copied").text.startswith("Copied."))
        return self.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
