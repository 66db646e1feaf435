"""Chat templates are strangers' programs: transformers compiles each so that rendering ends, and stays small.

What is bounded is told by `template_bounds`, and by how much by `template_budget`. An honest template renders what it
always did.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.visitor import NodeTransformer
from transformers.utils import chat_template_utils

from stepdpo.models import template_bounds as bounds
from stepdpo.models import template_budget as budget

COMPILE = "_compile_jinja_template"
"""By this name transformers makes a template, whenever it renders one."""
LENGTH = 1_000_000
"""Characters of a template: the longest that models have are a thirtieth of that."""
STATEMENTS = 20
"""So many statements of a body cost a step more, whenever it is gone through."""
log = logging.getLogger(__name__)


def bound_chat_templates() -> None:
    """From here on, transformers' templates are bounded in this process."""
    own = getattr(chat_template_utils, COMPILE, None)
    if own is None:
        log.warning("this version of transformers compiles chat templates in another way: they are not bounded")
    elif not hasattr(own, "unbounded"):
        compile_bounded = lru_cache(lambda text: compiled(text, getattr(own, "__wrapped__", own)))
        compile_bounded.unbounded = own  # type: ignore[attr-defined]
        setattr(chat_template_utils, COMPILE, compile_bounded)


def compiled(text: str, transformers_compile: Any) -> Any:
    """A template in transformers' own environment, which is a fresh one, with bounds in it."""
    if len(text) > LENGTH:
        raise budget.beyond(f"{len(text):,} characters")
    budget.begin()
    environment = bounded(transformers_compile("").environment)
    template = environment.from_string(_Counting().visit(environment.parse(text)))
    render = template.root_render_func

    def begin_and_render(context: Any) -> Any:
        budget.begin()
        yield from render(context)

    template.root_render_func = begin_and_render
    return template


def bounded(environment: Any) -> Any:
    """A sandboxed environment in which whatever repeats, grows or calls is counted."""
    call = environment.call

    def counted_call(context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function in budget.COUNTERS:
            return function(*args)
        return bounds.called(function, lambda: call(context, function, *args, **kwargs), [*args, *kwargs.values()])

    @pass_context  # not applied when the template is compiled, to what it then knows already
    def finalize(context: Any, value: Any) -> Any:
        return budget.weighed(value)

    environment.optimized = False  # nothing is worked out ahead
    environment.finalize = finalize
    environment.concat = bounds.concat
    environment.call = counted_call
    environment.intercepted_binops = frozenset(bounds.OPERATORS)
    environment.binop_table = {**environment.binop_table, **bounds.OPERATORS}
    environment.filters = {name: bounds.filtered(name, one) for name, one in environment.filters.items()}
    environment.tests = {name: bounds.filtered("is", one) for name, one in environment.tests.items()}
    environment.globals.pop("lipsum", None)  # text by chance, as much as is wanted
    for counter in budget.COUNTERS:
        setattr(environment, counter.__name__, counter)
    return environment


class _Counting(NodeTransformer):
    """Wraps what Jinja lets nobody intercept: loops, bodies, comparisons, slices, new lists."""

    def visit_For(self, node: Any) -> Any:
        self.generic_visit(node)
        node.iter = _through(budget.counted, node.iter, nodes.Const(_cost(node)))
        return node

    def visit_Compare(self, node: Any) -> Any:
        self.generic_visit(node)
        for one in (node, *node.ops):
            one.expr = _through(budget.costed, one.expr)
        return node

    def visit_Concat(self, node: Any) -> Any:
        self.generic_visit(node)
        node.nodes = [_through(budget.weighed, one) for one in node.nodes]
        return _through(budget.weighed, node)

    def visit_Getitem(self, node: Any) -> Any:
        self.generic_visit(node)
        return _through(budget.weighed, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: Any) -> Any:
        self.generic_visit(node)
        return _through(budget.weighed, node) if node.ctx == "load" else node

    def visit_List(self, node: Any) -> Any:
        self.generic_visit(node)
        return _through(budget.weighed, node)

    visit_Dict = visit_List

    def visit_Macro(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_through(budget.spend, nodes.Const(_cost(node)))).set_lineno(node.lineno))
        return node

    visit_CallBlock = visit_Block = visit_Macro


def _through(counter: Any, *given: Any) -> Any:
    """An expression that calls one of the counters."""
    call = nodes.Call(nodes.EnvironmentAttribute(counter.__name__), list(given), [], None, None)
    return call.set_lineno(getattr(given[0], "lineno", None) or 1)


def _cost(node: nodes.Node) -> int:
    return 1 + sum(1 for _ in node.find_all(nodes.Stmt)) // STATEMENTS
