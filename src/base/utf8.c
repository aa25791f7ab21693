/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding refuses overlong forms, surrogates and code points past U+10FFFF by the range of the
 * second byte, as the Unicode standard's table 3-7 does; the length of what was still good tells
 * how many bytes one replacement character stands for.
 */
#include "src/base/utf8.h"

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
