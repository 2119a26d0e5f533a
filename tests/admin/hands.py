"""Do a job on a page as a person does, with the mouse or by the keyboard alone, and count clicks and pages."""

from __future__ import annotations

from typing import Any

from babel.support import Translations
from playwright.sync_api import Locator, Page, expect

from router.admin.i18n import TRANSLATIONS
from tests.admin.conftest import check_axe

MOST_TABS = 300
IS_FOCUSED = "element => element === document.activeElement"


class Hands:
    """The hands of one person on one page. All texts are given in English and looked for in the page's language.

    `clicks`: clicks of the mouse, or presses of Enter and Space: a click into a field that is not focused counts, and a
    choice in a list counts as two.
    `pages`: pages that were loaded after the first.
    """

    def __init__(self, page: Page, *, language: str = "en", mouse: bool = True) -> None:
        self.page, self.mouse = page, mouse
        self.clicks = self.pages = 0
        self._translations = Translations.load(TRANSLATIONS, [language])
        page.on("domcontentloaded", self._count_page)

    def _count_page(self, _page: Page) -> None:
        self.pages += 1

    def say(self, text: str, **values: object) -> str:
        """Return the text in the page's language."""
        translated: str = self._translations.gettext(text)
        return translated % values if values else translated

    def find(self, role: Any, text: str, within: Locator | None = None, **values: object) -> Locator:
        """Return the control of this role and exact name."""
        return (within or self.page).get_by_role(role, name=self.say(text, **values), exact=True)

    def check_axe(self) -> None:
        """Check the page as it is, once for both hands: in the longer words, and with what the keyboard has focused."""
        if not self.mouse:
            check_axe(self.page)

    def press(self, control: Locator) -> None:
        """Click the control; by keyboard: go to it and press the key that works it."""
        expect(control).to_be_visible()
        expect(control).to_be_enabled()
        self.clicks += 1
        if self.mouse:
            control.click()
            return
        self._go_to(control)
        is_button = control.evaluate("element => element.matches('button, summary, a')")
        self.page.keyboard.press("Enter" if is_button else "Space")

    def type(self, field: Locator, text: str) -> None:
        """Replace the text of a field."""
        if not self.mouse:
            self._go_to(field)
        elif not field.evaluate(IS_FOCUSED):
            self.clicks += 1
            field.click()
        if field.evaluate("element => ['date', 'time', 'datetime-local', 'number'].includes(element.type)"):
            field.fill(text)  # the parts of such a field are the browser's own
            return
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text)

    def choose(self, field: Locator, text: str, **values: object) -> None:
        """Choose an option of a list by its label."""
        label = self.say(text, **values)
        if self.mouse:
            field.select_option(label=label)
        else:
            self._go_to(field)
            chosen = field.locator("option:checked")
            if label.isascii():
                self.page.keyboard.type(label)
            else:  # for other letters no key is pressed
                for _option in field.locator("option").all():
                    if chosen.inner_text() != label:
                        self.page.keyboard.press("ArrowDown")
            expect(chosen).to_have_text(label)
        self.clicks += 2

    def pick(self, group: Locator, text: str, **values: object) -> None:
        """Choose one of a group of radio buttons by its label, by keyboard with the arrows."""
        wanted = group.get_by_role("radio", name=self.say(text, **values))
        self.clicks += 1
        if self.mouse:
            wanted.check()
            return
        self._go_to(group.locator("input:checked"))
        while not wanted.is_checked():
            self.page.keyboard.press("ArrowDown")

    def _go_to(self, control: Locator) -> None:
        expect(control).to_be_visible()
        element = control.element_handle()  # looked for once: by its role and name that takes longer than to press Tab
        for _tab in range(MOST_TABS):
            if element.evaluate(IS_FOCUSED):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {control}")
