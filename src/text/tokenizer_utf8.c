/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding refuses overlong forms, surrogates and code points past U+10FFFF by the range of the
 * second byte, as the Unicode standard's table 3-7 does; the length of what was still good tells
 * how many bytes one replacement character stands for. Categories come from utf8proc: of a code
 * point that was assigned after its Unicode version, the reference may know more.
 */
#include "src/text/tokenizer_utf8.h"

#include <utf8proc.h>

#include "src/text/unicode.h"

/* Length by first byte, and the range of the second (the others are 80..BF). */
static int expect(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    *high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF)
        return 3;
    return c >= 0xF0 && c <= 0xF4 ? 4 : 0;
}

int tr_utf8_decode(const char *p, size_t n, uint32_t *cp)
{
    unsigned char c = (unsigned char)p[0], low, high;
    int want;

    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    want = expect(c, &low, &high);
    if (!want)
        return -1;
    *cp = c & (0xFF >> (want + 1));
    for (int i = 1; i < want; i++) {
        unsigned char d = (size_t)i < n ? (unsigned char)p[i] : 0;

        if (d < low || d > high)
            return -i;
        *cp = *cp << 6 | (d & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return want;
}

int tr_utf8_encode(uint32_t cp, char out[4])
{
    return (int)utf8proc_encode_char((utf8proc_int32_t)cp, (utf8proc_uint8_t *)out);
}

size_t tr_utf8_back(const char *p, size_t at)
{
    do
        at--;
    while (at && ((unsigned char)p[at] & 0xC0) == 0x80);
    return at;
}

/* ASCII by itself first: most texts are little else. */
size_t tr_utf8_valid(const char *p, size_t n)
{
    size_t i = 0;

    while (i < n) {
        uint32_t cp;
        int k = (unsigned char)p[i] < 0x80 ? 1 : tr_utf8_decode(p + i, n - i, &cp);

        if (k < 0)
            break;
        i += (size_t)k;
    }
    return i;
}

int tr_unicode_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 9 && cp <= 13) || cp == ' ';
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

/* Circled and squared letters are alphabetic although their category is "other symbol". */
static int is_enclosed_letter(uint32_t cp)
{
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
           (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

int tr_unicode_is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return 1;
    default:
        return cp == 0x200C || cp == 0x200D || is_enclosed_letter(cp) ||
               tr_unicode_is_added_word(cp);
    }
}
