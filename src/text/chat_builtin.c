/* SPDX-License-Identifier: Apache-2.0
 *
 * Built-in templates, in the language of all templates: the formats that the families were trained
 * with. Alpaca's was none: its text was encoded as any other, with the BOS that the tokenizer adds.
 */
#include "src/text/chat.h"

#include <string.h>

static const struct {
    const char *name, *text;
} builtin[] = {
    {"llama2",
     "{% set system = '' %}{% set turns = messages %}"
     "{% if messages and messages[0].role == 'system' %}"
     "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
     "{% set turns = messages[1:] %}{% endif %}"
     "{% for m in turns %}{% if m.role == 'user' %}"
     "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content | trim }} [/INST]"
     "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}"
     "{% else %}{{ raise_exception('llama2 has no role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim }}<|eot_id|>"
     "{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"chatml",
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"mistral",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}"
     "{% elif m.role == 'user' %}{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}"
     "{% set ns.system = '' %}"
     "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}"
     "{% else %}{{ raise_exception('mistral has no role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"alpaca",
     "{{ added_bos }}{% if not messages or messages[0].role != 'system' %}"
     "{{ 'Below is an instruction that describes a task. Write a response that appropriately "
     "completes the request.\\n\\n' }}{% endif %}{% for m in messages %}"
     "{% if m.role == 'system' %}{{ m.content + '\\n\\n' }}"
     "{% elif m.role == 'user' %}{{ '### Instruction:\\n' + m.content + '\\n\\n' }}"
     "{% elif m.role == 'assistant' %}{{ '### Response:\\n' + m.content + eos_token + '\\n\\n' }}"
     "{% else %}{{ raise_exception('alpaca has no role ' ~ m.role) }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"},
    {"zephyr",
     "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}"
     "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"},
    {"phi3",
     "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"},
    {"gemma", "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
              "{{ raise_exception('gemma has no system role') }}{% endif %}"
              "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
              "{{ m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
};

const char *chat_builtin(const char *name)
{
    for (size_t i = 0; i < sizeof(builtin) / sizeof(builtin[0]); i++)
        if (!strcmp(builtin[i].name, name))
            return builtin[i].text;
    return NULL;
}

int chat_is_name(const char *text)
{
    return !strpbrk(text, "/.");
}

const char *chat_builtin_names(void)
{
    return "llama2|llama3|chatml|mistral|alpaca|zephyr|phi3|gemma";
}
