"""The list of projects. More to come below."""

from __future__ import annotations

from flask import redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from router.admin.page import Role, page


@page("/", see=Role.VIEWER)
def home() -> ResponseReturnValue:
    return redirect(url_for("admin.projects"))


@page("/projects", see=Role.VIEWER)
def projects() -> ResponseReturnValue:
    return render_template("projects/projects.html", rows=[])
