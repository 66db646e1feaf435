"""Chat templates of the kinds that model families have: what each does with turns, white space, tools and the clock."""

QWEN2 = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

QWEN_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string
        and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content, thought = message.content, '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n\\n" }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.tool_calls|length != 1 %}{{- raise_exception("one call at a time!") }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}\
{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}\
{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}\
{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

MISTRAL = """\
{%- set default = "You are helpful." %}
{%- if messages[0]["role"] == "system" %}
    {%- set system_message, loop_messages = messages[0]["content"], messages[1:] %}
{%- else %}{%- set system_message, loop_messages = default, messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message.role == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- for key, val in tool.function.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' ~ key ~ '": ' ~ val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
            {%- endfor %}
            {{- "] [/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + (system_message + "\\n\\n" if loop.last else "") + message["content"] + "[/INST]" }}
    {%- elif message.role == "assistant" %}
        {%- generation %}{{- " " + message.content|trim + eos_token }}{%- endgeneration %}
    {%- else %}{{- raise_exception("Only user and assistant roles are supported!") }}{%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}"""

MACROS = """\
{%- macro shown(value, depth=0) -%}
    {%- if value is mapping -%}{ {%- for key, one in value|dictsort -%}
        {{ '%s%-4s' % ('  ' * depth, key) }}: {{ shown(one, depth + 1) }}{{ ', ' if not loop.last }}{%- endfor -%} }
    {%- elif value is iterable and value is not string -%}
        [{{ value|map('string')|join(', ') }}|{{ '-'.join(value|map('upper')|list) }}]
    {%- else -%}{{ value|string|replace('a', 'A')|indent(2)|center(20) }}{%- endif -%}
{%- endmacro -%}
{%- for message in messages if message.role != 'system' -%}
    {%- if loop.index > 40 -%}{%- break -%}{%- endif -%}
    {{ loop.index ~ '/' ~ loop.length ~ loop.cycle('a', 'b') }} {{ shown(message) }} {{ shown(['x', 'yz']) }}
    {{- '{:>6}|{name}'.format(loop.index * 2 ** 3, name=message.role.title()) }}{% set x = dict(a=1, **message) %}
    {{- x.get('a') ~ (x.items()|list|length) ~ x ~ [1, 2.5, none] ~ (1, 'b') }}
    {{- [3, 1, 2]|sort|first }}{{ range(3)|sum }}
{% endfor -%}
{%- macro twice() -%}{{ caller(1) }}{{ caller(2) }}{%- endmacro -%}
{%- call(number) twice() -%}<{{ number }}>{%- endcall -%}
{%- filter upper -%}{{ messages|length }} turns{%- endfilter -%}"""

FAMILIES = {
    "qwen2": QWEN2, "qwen with tools": QWEN_TOOLS, "llama 3": LLAMA3, "deepseek": DEEPSEEK, "gemma": GEMMA,
    "mistral": MISTRAL, "macros, filters, formats": MACROS,
}  # fmt: skip

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds “two” numbers <&>.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"enum": [1, 2.5, None]}}},
        "return": {"type": "number"},
    },
}
