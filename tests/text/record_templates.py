#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records templates.json with the reference implementation (pip install transformers jinja2).

    record_templates.py SHARED_DATA ROOT

Templates: the built-in ones as they stand in src/text/chat_builtin.c, those of the shared data's
models, tests/text/templates/*.jinja (written for the constructs that the templates of thinking,
tool-calling and strictly alternating families use), and one-line templates for single constructs.
A record is the variables and what the reference writes, or null where it refuses; with a
{% generation %} block, also the spans that it says are the assistant's.
"""
import ast
import json
import pathlib
import re
import sys

import jinja2
from transformers.utils import chat_template_utils as reference

SHARED, ROOT = map(pathlib.Path, sys.argv[1:3])
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
U, A, S, T = "user", "assistant", "system", "tool"


def talk(*pairs):
    return [{"role": r, "content": c} for r, c in pairs]


CALL = {"type": "function", "id": "abcdefghi",
        "function": {"name": "add", "arguments": {"a": 1, "b": 2.5, "c": "d'é\"\n"}}}
TOOLS = [{"type": "function", "function": {
    "name": "add", "description": "Adds <two> numbers & more",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"],
                   "x": [], "y": {}}}}]
TALKS = {
    "one": (talk((U, " Hi there \n"), (A, " Hello! ")), None),
    "system": (talk((S, "Be brief."), (U, "2+2?"), (A, "4"), (U, "And 3+3?"), (A, "6\n")), None),
    "open": (talk((U, "é漢字 😀"), (A, "ok"), (U, "more")), None),
    "thinking": (talk((U, "q"), (A, "<think>\nhm\n</think>\n\nyes"), (U, "r"),
                      (A, "<think>\nwell\n</think>\n\nno")), None),
    "reasoning": ([{"role": U, "content": "q"},
                   {"role": A, "content": "yes", "reasoning_content": "\nhm\n"}], None),
    "two answers": (talk((U, "a"), (A, "b"), (A, "c")), None),
    "first answer": (talk((A, "b"), (U, "c"), (A, "d")), None),
    "late system": (talk((U, "a"), (S, "b"), (U, "c")), None),
    "other role": (talk((U, "a"), ("critic", "b")), None),
    "tools": ([{"role": U, "content": "1+2.5?"}, {"role": A, "content": "", "tool_calls": [CALL]},
               {"role": T, "content": "3.5"}, {"role": T, "content": "again"},
               {"role": A, "content": "3.5"}], TOOLS),
    "no content": ([{"role": U, "content": "1"}, {"role": A, "tool_calls": [CALL]}], TOOLS),
    "none": ([], None),
}

ONE_LINERS = r"""
{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 1.0 }} {{ 1e3 }}
{{ 0.1 + 0.2 }}
{{ 10.0 * 100000000000000000 }} {{ 1.5 // 1 }} {{ 0.00001 * 1 }} {{ -3 }} {{ - 3 + 4 }}
{{ 'a' ~ 1 ~ none ~ true ~ x }} {{ 'a' 'b' }} {{ "it's" }} {{ 'q"' }} {{ 'a\tb\\n\x41\u00e9\q' }}
{{ ['a', "it's", 'q"\'', 1, 1.5, none, true, {'k': [1]}] }} {{ [] }} {{ {} }} {{ 'é\n' | list }}
{{ x is defined }} {{ not x is defined }} {{ x is not defined }}
{{ x.y is defined }}
{{ m.y is defined }} {{ m.a is defined }} {{ m['a'] }} {{ m['zz'] }} {{ m.get('a') }}
{{ m.get('z', 5) }} {{ m.get('z') }}
{{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ '' is string }}
{{ m is mapping }} {{ l is sequence }} {{ 's' is iterable }} {{ none is none }}
{{ 3 is odd }} {{ 4 is even }} {{ 4 is divisibleby 2 }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }}
{{ 'a' is in 'abc' }}
{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ [1, 2] == [1, 2] }} {{ x == none }}
{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' < 'b' }}
{{ 'b' in 'abc' }} {{ 'z' not in 'abc' }} {{ 2 in l }} {{ 'a' in m }} {{ 'q' in x }}
{{ l[0] }} {{ l[-1] }} {{ l[9] }} {{ 'héllo'[1] }} {{ 'héllo'[-1] }} {{ 'héllo'[1:3] }}
{{ 'héllo'[::-1] }} {{ l[::-1] }} {{ l[1:] }} {{ l[:-1] }} {{ l[::2] }} {{ l[5:] }}
{{ 'a' if true else 'b' }} {{ 'a' if false }} {{ ('a' if x else 'b') ~ 'c' }} {{ x or 'd' }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ not 1 }}
{{ '  a b ' | trim }}| {{ ' a'.strip() }} {{ 'xxaxx'.strip('x') }}
{{ ' a '.lstrip() }}| {{ ' a '.rstrip() }}| {{ '\u3000a\u00a0' | trim }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }}
{{ 'a</t>b'.split('</t>')[-1] }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'a  b c '.split(none, 1) }}
{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'ab')) }}
{{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'aXb' | replace('X', '') }}
{{ 'aé ß' | upper }} {{ 'AÉ' | lower }} {{ 'hello world' | title }} {{ 'hELLO' | capitalize }}
{{ 'ab'.upper() }} {{ "it's a b-c".title() }}
{{ l | join(', ') }} {{ l | join }} {{ ', '.join(['a', 'b']) }} {{ q | join(';', attribute='n') }}
{{ 'abc' | join('-') }}
{{ l | length }} {{ 'héllo' | length }} {{ m | length }} {{ l | first }} {{ l | last }}
{{ 'ab' | last }} {{ l | reverse | list }} {{ m | list }}
{{ x | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }}
{{ none | default('d') }} {{ x | d }}| {{ none | default('d', boolean=true) }}
{{ m | tojson }} {{ l | tojson }} {{ 'é"\n\x7f\x01/' | tojson }} {{ 1.5 | tojson }}
{{ none | tojson }} {{ m | tojson(indent=2) }} {{ [] | tojson(indent=2) }}
{{ m | tojson(sort_keys=true) }} {{ m | tojson(separators=(',', ':')) }}
{{ 'é😀' | tojson(ensure_ascii=true) }}
{% for k, v in m | items %}{{ k }}{{ v }}{% endfor %} {{ m.keys() | list }}
{{ m.values() | list }} {% for k, v in m | dictsort %}{{ k }}{{ v }}{% endfor %}
{{ x | items | list }}
{{ '5' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 5.9 | int }} {{ true | int }}
{{ 5 | string }} {{ none | string }}
{{ q | selectattr('n') | list | length }}
{{ q | selectattr('n', 'equalto', 2) | map(attribute='s') | join }}
{{ q | rejectattr('z', 'defined') | list | length }} {{ l | select('odd') | list }}
{{ l | reject('gt', 1) | list }} {{ l | select | list }} {{ ['a', 'b'] | map('upper') | join }}
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent(2, true) }} {{ 'abcabc'.find('c') }}
{{ 'abcabc'.count('b') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ 'a\nb\r\nc'.splitlines() }} {{ '12'.isdigit() }}
{% for i in range(3) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}
{{ range(1, 9, 3) | list }} {{ range(3, 0, -1) | list }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{% endfor %}
{% for i in l %}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}
{% for i in l %}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}
{% for i in l if i != 2 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}
{% for i in [] %}a{% else %}none{% endfor %} {% for c in 'hé' %}[{{ c }}]{% endfor %}
{% for k in m %}{{ k }}{% endfor %} {% for i in x %}a{% endfor %}
{% for k, v in m.items() %}{{ k }}={{ v }};{% endfor %} {% set a, b = 1, 2 %}{{ a + b }}
{% for i in l %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}
{% for i in l %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set a = 1 %}{% for i in l %}{% set a = i %}{{ a }}{% endfor %}{{ a }}
{% if true %}{% set a = 5 %}{% endif %}{{ a }}
{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}
{% set ns.z = [1] %}{{ ns.z }} {{ ns.q is defined }}
{% set t %}a{{ 1 }}b{% endset %}[{{ t }}] {% set t %}{% endset %}[{{ t }}] {{ dict(a=1, b='c') }}
{% macro f(a, b='x', c=none) %}{{ a }}{{ b }}{{ c }}{{ g }}{% endmacro %}{% set g = 'G' %}{{ f(1) }}
{{ f(1, c=2) }} {{ f(1, 2, 3) }} {{ f('q', b='r') | upper }}
{% macro f() %}{{ h is defined }}{% endmacro %}{% for h in l %}{% set g = 2 %}{{ f() }}{% endfor %}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}
{% if x %}a{% elif m.a %}b{% else %}c{% endif %}
{% if none %}a{% elif false %}b{% else %}c{% endif %} {% if '' or [] or {} or 0 %}a{% endif %}
a {%- if true -%} b {%- endif -%} c  {{- 'd' -}}  e {# comment #} f {#- comment -#} g
{{ x.y.z }}
{{ x + 'a' }}
{{ 'a' + 1 }}
{{ none.a }}
{{ nosuch('a') }}
{{ raise_exception('no') }}
{{ l.append(4) }}
{{ 1 // 0 }}
{{ none | length }}
{{ [1, 2] + [3] }} {{ (1, 2)[1] }} {{ (1) }} {{ [1, 2,] }} {{ {'a': 1, 'b': 2,}['b'] }} {{ l.0 }}
{{ "{{ '}}' }}" }} {{ '%}' }} {{ {'a': {'b': 1}}}}
{{ bos_token + 'a' | trim + ' b' }} {{ ('a' + ' b ') | trim }} {{ 'a' ~ 'b' | upper }}
{{ -1 | string }} {{ 'a' in ['a'] and 'b' not in ['a'] }}
{{ l | map('string') | join('+') }} {{ q | map(attribute='n') | list }}
{{ 'x' * 0 if false else 'y' }} {{ loop is defined }}
{{ '\U0001F600' }} {{ '\101\0601' }} {{ '\x00'|length }} {{ '\0'|tojson }} {{ '\8\q' }} {{ '\777' }}
{{ d | selectattr('f.name') | list | length }} {{ d | rejectattr('f.name') | list | length }}
{{ d | selectattr('f.name', 'equalto', 'x') | map(attribute='f.l.1') | join }}
{{ d | map(attribute='f.name') | join(',') }} {{ d | join('+', attribute='f.name') }}
{{ d | selectattr('nosuch.name') | list }}
{{ 'abc'.startswith('b', 1) }} {{ 'abc'.startswith('b', 1, 1) }} {{ 'abc'.startswith('', 3) }}
{{ 'abc'.startswith('', 4) }} {{ 'abc'.startswith('', 2, 1) }}
{{ 'abc'.startswith(('c', 'b'), -2) }}
{{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.endswith('b', 0, -1) }} {{ 'abc'.endswith('ab', 1, 2) }}
{{ 'aéaéa'.find('a', 1) }} {{ 'aéaéa'.find('a', 3, -1) }} {{ 'aéaéa'.find('é', -2) }}
{{ 'abc'.find('', 3) }} {{ 'abc'.find('', 4) }} {{ 'abc'.find('c', none, none) }}
{{ 'abc'.find('a', -9) }}
{{ 'aéaéa'.count('a', 1) }} {{ 'aéaéa'.count('a', 1, 4) }} {{ 'aéaéa'.count('a', 4, 1) }}
{{ 'abc'.find('c', 'x') }}
{{ 'tool_response' | title }} {{ "it's a(b) c-d {e} [f] <g> é/h ß" | title }} {{ 'ABC' | title }}
{{ 'tool_response'.title() }}
{{ '3.7' | int }} {{ ' 5 ' | int }} {{ '-3.7\n' | int }} {{ '1e3' | int }} {{ '.5' | int }}
{{ '5.' | int }} {{ '+7' | int }} {{ '0x10' | int }} {{ 'inf' | int(3) }}
{{ 'nan' | int }} {{ '' | int }}
{{ '1e999' | int(4) }} {{ '- 3' | int }} {{ '-' | int }} {{ '1.2.3' | int }}
{{ [] | int }} {{ none | int }}
{{ '5a' | int(default=2) }} {{ '\u00a05' | int }} {{ '007' | int }}
{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\n' | indent(2, false, true) }}|{{ 'a\n' | indent(2) }}|
{{ '\na' | indent(2, true) }}|{{ '' | indent(2, first=true) }}|{{ 'a\r\nb\rc' | indent(1) }}|
{{ ('a', 'b') }} {{ (1,) }} {{ () }} {{ [(1, 2), [3]] }} {{ 1, 2 }} {{ ('a', 'b') | tojson }}
{{ m.items() | list }} {{ m | items | list }} {{ m | dictsort }} {{ ('a', 'b') | list }}
{% for p in m.items() %}{{ p }}{% endfor %} {% set p = 1, (2, 3) %}{{ p }} {{ p[1] }}
{{ 'a' ~ (1,) }}
{{ (1, 2, 3)[1:] }} {{ (1, 2) | string }} {{ (1, 2) + (3,) }} {{ (1, 2) | reverse | list }}
""".strip().split("\n")

LAYOUT = {
    "blocks": "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "kept": "a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc\n\n",
    "inline": "a {% if true %} b {% endif %} c\n  {# gone #}\n d\n",
    "stripped": "a\n\n {%- if true -%} \n b \n {%- endif %}\n\n c",
    "windows": "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc",
    "old": "a\r{% if true %}\rb{% endif %}\r\n",
    "loop": "{% for i in l %}\n  {{ i }}\n{% endfor %}\n",
    "comment": "a\n    {# x #}    {% if true %}\n b{% endif %}\n",
    "print": "  {{ 1 }}\n  {{ 2 -}}\n  x\n",
}


def builtins():
    text = (ROOT / "src/text/chat_builtin.c").read_text()
    table = text[text.index("builtin[] = {"):text.index("};\n\nconst char *chat_builtin(")]
    found = re.findall(r'\{"(\w+)",\s*((?:"(?:\\.|[^"\\])*"\s*)+)\}', table)
    return {name: ast.literal_eval("(" + parts + ")") for name, parts in found}


def shared():
    for name in ["phi-3-mini", "minueza-32m-mistral"]:
        path = SHARED / "tokenizers" / name / "tokenizer_config.json"
        yield name, json.loads(path.read_text())["chat_template"]


def render(template, variables):
    """The text and the generation spans; None where the reference refuses."""
    tracked = "generation %}" in template
    try:
        compiled = reference._compile_jinja_template(template)
        if tracked:
            text, spans = reference._render_with_assistant_indices(
                compiled, variables["messages"], variables["tools"], None,
                variables["add_generation_prompt"],
                **{k: v for k, v in variables.items() if k in TOKENS})
            bytes_at = [[len(text[:i].encode()) for i in span] for span in spans]
            return {"text": text, "spans": bytes_at}
        return {"text": compiled.render(**variables)}
    except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError, AttributeError,
            KeyError, IndexError):
        return {"text": None}


def main():
    templates = {name: text for name, text in shared()}
    templates.update({"builtin " + name: text for name, text in builtins().items()})
    for path in sorted((ROOT / "tests/text/templates").glob("*.jinja")):
        templates[path.stem] = path.read_text()
    out = {"conversations": {name: {"messages": m, "tools": t} for name, (m, t) in TALKS.items()},
           "templates": {}, "tokens": TOKENS, "lines": []}
    for name, template in templates.items():
        cases = []
        for talk_name, (messages, tools) in TALKS.items():
            for prompt in [False, True]:
                variables = dict(TOKENS, messages=messages, tools=tools, documents=None,
                                 add_generation_prompt=prompt)
                cases.append(dict(render(template, variables), talk=talk_name, prompt=prompt))
        own = name.startswith("builtin ")
        out["templates"][name] = {"template": template if own else None, "cases": cases}
    variables = {"m": {"a": 1, "b": [1, "é"], "A": {"c": None, "d": False}}, "l": [1, 2, 3],
                 "q": [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}, {"n": 0, "s": "c"}],
                 "d": [{"f": {"name": "x", "l": [4, 5]}}, {"f": {"name": "", "l": []}}]}
    variables.update(TOKENS)
    out["variables"] = variables
    for template in ONE_LINERS + list(LAYOUT.values()):
        out["lines"].append(dict(render(template, variables), template=template))
    path = ROOT / "tests/text/templates.json"
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


main()
