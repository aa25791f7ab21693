/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the Unicode of the reference differs from that of the libraries. Token ids hang on which
 * characters are letters, numbers or marks, and the reference mixes versions: its regular
 * expressions know Unicode 16, its numbers 17, its punctuation 8, its normal forms 9. PCRE2 10.42
 * has 14 and utf8proc 2.8 has 15. The tables below are the differences, found by asking the
 * reference for every code point; a newer library that already knows an addition loses nothing.
 */
#include "src/text/unicode.h"

#include <string.h>

#include <utf8proc.h>

struct range {
    uint32_t first, last;
    char category[4];
};

/* Assigned after Unicode 14, with the categories that expressions ask for. */
static const struct range added[] = {
    /* clang-format off */
    {0x0897, 0x0897, "M"}, {0x0CF3, 0x0CF3, "M"}, {0x0ECE, 0x0ECE, "M"}, {0x1B4E, 0x1B4F, "P"},
    {0x1B7F, 0x1B7F, "P"}, {0x1C89, 0x1C89, "Lu"}, {0x1C8A, 0x1C8A, "Ll"}, {0x2427, 0x2429, "S"},
    {0x2FFC, 0x2FFF, "S"}, {0x31E4, 0x31E5, "S"}, {0x31EF, 0x31EF, "S"}, {0xA7CB, 0xA7CC, "Lu"},
    {0xA7CD, 0xA7CD, "Ll"}, {0xA7DA, 0xA7DA, "Lu"}, {0xA7DB, 0xA7DB, "Ll"},
    {0xA7DC, 0xA7DC, "Lu"}, {0x105C0, 0x105F3, "Lo"}, {0x10D40, 0x10D49, "Nd"},
    {0x10D4A, 0x10D4D, "Lo"}, {0x10D4E, 0x10D4E, "Lm"}, {0x10D4F, 0x10D4F, "Lo"},
    {0x10D50, 0x10D65, "Lu"}, {0x10D69, 0x10D6D, "M"}, {0x10D6E, 0x10D6E, "P"},
    {0x10D6F, 0x10D6F, "Lm"}, {0x10D70, 0x10D85, "Ll"}, {0x10D8E, 0x10D8F, "S"},
    {0x10EC2, 0x10EC4, "Lo"}, {0x10EFC, 0x10EFF, "M"}, {0x1123F, 0x11240, "Lo"},
    {0x11241, 0x11241, "M"}, {0x11380, 0x11389, "Lo"}, {0x1138B, 0x1138B, "Lo"},
    {0x1138E, 0x1138E, "Lo"}, {0x11390, 0x113B5, "Lo"}, {0x113B7, 0x113B7, "Lo"},
    {0x113B8, 0x113C0, "M"}, {0x113C2, 0x113C2, "M"}, {0x113C5, 0x113C5, "M"},
    {0x113C7, 0x113CA, "M"}, {0x113CC, 0x113D0, "M"}, {0x113D1, 0x113D1, "Lo"},
    {0x113D2, 0x113D2, "M"}, {0x113D3, 0x113D3, "Lo"}, {0x113D4, 0x113D5, "P"},
    {0x113D7, 0x113D8, "P"}, {0x113E1, 0x113E2, "M"}, {0x116D0, 0x116E3, "Nd"},
    {0x1171E, 0x1171E, "M"}, {0x11B00, 0x11B09, "P"}, {0x11BC0, 0x11BE0, "Lo"},
    {0x11BE1, 0x11BE1, "P"}, {0x11BF0, 0x11BF9, "Nd"}, {0x11F00, 0x11F01, "M"},
    {0x11F02, 0x11F02, "Lo"}, {0x11F03, 0x11F03, "M"}, {0x11F04, 0x11F10, "Lo"},
    {0x11F12, 0x11F33, "Lo"}, {0x11F34, 0x11F3A, "M"}, {0x11F3E, 0x11F42, "M"},
    {0x11F43, 0x11F4F, "P"}, {0x11F50, 0x11F59, "Nd"}, {0x11F5A, 0x11F5A, "M"},
    {0x1342F, 0x1342F, "Lo"}, {0x13440, 0x13440, "M"}, {0x13441, 0x13446, "Lo"},
    {0x13447, 0x13455, "M"}, {0x13460, 0x143FA, "Lo"}, {0x16100, 0x1611D, "Lo"},
    {0x1611E, 0x1612F, "M"}, {0x16130, 0x16139, "Nd"}, {0x16D40, 0x16D42, "Lm"},
    {0x16D43, 0x16D6A, "Lo"}, {0x16D6B, 0x16D6C, "Lm"}, {0x16D6D, 0x16D6F, "P"},
    {0x16D70, 0x16D79, "Nd"}, {0x18CFF, 0x18CFF, "Lo"}, {0x1B132, 0x1B132, "Lo"},
    {0x1B155, 0x1B155, "Lo"}, {0x1CC00, 0x1CCEF, "S"}, {0x1CCF0, 0x1CCF9, "Nd"},
    {0x1CD00, 0x1CEB3, "S"}, {0x1D2C0, 0x1D2D3, "No"}, {0x1DF25, 0x1DF2A, "Ll"},
    {0x1E030, 0x1E06D, "Lm"}, {0x1E08F, 0x1E08F, "M"}, {0x1E4D0, 0x1E4EA, "Lo"},
    {0x1E4EB, 0x1E4EB, "Lm"}, {0x1E4EC, 0x1E4EF, "M"}, {0x1E4F0, 0x1E4F9, "Nd"},
    {0x1E5D0, 0x1E5ED, "Lo"}, {0x1E5EE, 0x1E5EF, "M"}, {0x1E5F0, 0x1E5F0, "Lo"},
    {0x1E5F1, 0x1E5FA, "Nd"}, {0x1E5FF, 0x1E5FF, "P"}, {0x1F6DC, 0x1F6DC, "S"},
    {0x1F774, 0x1F776, "S"}, {0x1F77B, 0x1F77F, "S"}, {0x1F7D9, 0x1F7D9, "S"},
    {0x1F8B2, 0x1F8BB, "S"}, {0x1F8C0, 0x1F8C1, "S"}, {0x1FA75, 0x1FA77, "S"},
    {0x1FA87, 0x1FA89, "S"}, {0x1FA8F, 0x1FA8F, "S"}, {0x1FAAD, 0x1FAAF, "S"},
    {0x1FABB, 0x1FABF, "S"}, {0x1FAC6, 0x1FAC6, "S"}, {0x1FACE, 0x1FACF, "S"},
    {0x1FADA, 0x1FADC, "S"}, {0x1FADF, 0x1FADF, "S"}, {0x1FAE8, 0x1FAE9, "S"},
    {0x1FAF7, 0x1FAF8, "S"}, {0x1FBCB, 0x1FBEF, "S"}, {0x2B739, 0x2B739, "Lo"},
    {0x2EBF0, 0x2EE5D, "Lo"}, {0x31350, 0x323AF, "Lo"},
};

/* Punctuation of utf8proc that is none to the reference. */
static const struct range no_punctuation[] = {
    {0x061D, 0x061D, ""}, {0x09FD, 0x09FD, ""}, {0x0A76, 0x0A76, ""}, {0x0C77, 0x0C77, ""},
    {0x0C84, 0x0C84, ""}, {0x1B7D, 0x1B7E, ""}, {0x2E43, 0x2E4F, ""}, {0x2E52, 0x2E5D, ""},
    {0x10EAD, 0x10EAD, ""}, {0x10F55, 0x10F59, ""}, {0x10F86, 0x10F89, ""},
    {0x1144B, 0x1144F, ""}, {0x1145A, 0x1145B, ""}, {0x1145D, 0x1145D, ""},
    {0x11660, 0x1166C, ""}, {0x116B9, 0x116B9, ""}, {0x1183B, 0x1183B, ""},
    {0x11944, 0x11946, ""}, {0x119E2, 0x119E2, ""}, {0x11A3F, 0x11A46, ""},
    {0x11A9A, 0x11A9C, ""}, {0x11A9E, 0x11AA2, ""}, {0x11B00, 0x11B09, ""},
    {0x11C41, 0x11C45, ""}, {0x11C70, 0x11C71, ""}, {0x11EF7, 0x11EF8, ""},
    {0x11F43, 0x11F4F, ""}, {0x11FFF, 0x11FFF, ""}, {0x12FF1, 0x12FF2, ""},
    {0x16E97, 0x16E9A, ""}, {0x16FE2, 0x16FE2, ""}, {0x1E95E, 0x1E95F, ""},
};

/* Numbers that utf8proc does not know yet. */
static const struct range numbers[] = {
    {0x10D40, 0x10D49, ""}, {0x116D0, 0x116E3, ""}, {0x11BF0, 0x11BF9, ""},
    {0x11DE0, 0x11DE9, ""}, {0x16130, 0x16139, ""}, {0x16D70, 0x16D79, ""},
    {0x16FF4, 0x16FF6, ""}, {0x1CCF0, 0x1CCF9, ""}, {0x1E5F1, 0x1E5FA, ""},
};

/* Whose combining class or decomposition the reference does not know: they stay as they are, and
 * nothing composes or moves across them. */
static const struct range opaque[] = {
    {0x07FD, 0x07FD, ""}, {0x0898, 0x089F, ""}, {0x08CA, 0x08D3, ""}, {0x09FE, 0x09FE, ""},
    {0x0C3C, 0x0C3C, ""}, {0x0D3B, 0x0D3C, ""}, {0x0EBA, 0x0EBA, ""}, {0x1715, 0x1715, ""},
    {0x1ABF, 0x1ACE, ""}, {0x1DF6, 0x1DFA, ""}, {0x32FF, 0x32FF, ""}, {0xA7F2, 0xA7F4, ""},
    {0xA82C, 0xA82C, ""}, {0xAB69, 0xAB69, ""}, {0x10781, 0x10785, ""}, {0x10787, 0x107B0, ""},
    {0x107B2, 0x107BA, ""}, {0x10D24, 0x10D27, ""}, {0x10EAB, 0x10EAC, ""},
    {0x10EFD, 0x10EFF, ""}, {0x10F46, 0x10F50, ""}, {0x10F82, 0x10F85, ""},
    {0x11070, 0x11070, ""}, {0x1133B, 0x1133B, ""}, {0x1145E, 0x1145E, ""},
    {0x11839, 0x1183A, ""}, {0x11938, 0x11938, ""}, {0x1193D, 0x1193E, ""},
    {0x11943, 0x11943, ""}, {0x119E0, 0x119E0, ""}, {0x11A34, 0x11A34, ""},
    {0x11A47, 0x11A47, ""}, {0x11A99, 0x11A99, ""}, {0x11D42, 0x11D42, ""},
    {0x11D44, 0x11D45, ""}, {0x11D97, 0x11D97, ""}, {0x11F41, 0x11F42, ""},
    {0x16FF0, 0x16FF1, ""}, {0x1E030, 0x1E06D, ""}, {0x1E08F, 0x1E08F, ""},
    {0x1E130, 0x1E136, ""}, {0x1E2AE, 0x1E2AE, ""}, {0x1E2EC, 0x1E2EF, ""},
    {0x1E4EC, 0x1E4EF, ""}, {0x1F16C, 0x1F16C, ""}, {0x1FBF0, 0x1FBF9, ""},
    /* clang-format on */
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static int is_in(const struct range *r, size_t n, uint32_t cp)
{
    size_t low = 0;

    while (n > low) {
        size_t middle = (low + n) / 2;

        if (cp > r[middle].last)
            low = middle + 1;
        else if (cp < r[middle].first)
            n = middle;
        else
            return 1;
    }
    return 0;
}

int tr_unicode_added(const char *category, size_t *at, uint32_t *first, uint32_t *last)
{
    for (; *at < COUNT(added); ++*at) {
        if (strncmp(added[*at].category, category, strlen(category)) != 0)
            continue;
        *first = added[*at].first;
        *last = added[*at].last;
        ++*at;
        return 1;
    }
    return 0;
}

int tr_unicode_is_added_word(uint32_t cp)
{
    for (size_t i = 0; i < COUNT(added) && added[i].first <= cp; i++)
        if (cp <= added[i].last)
            return strchr("LM", added[i].category[0]) || !strcmp(added[i].category, "Nd");
    return 0;
}

int tr_unicode_is_number(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return 1;
    default:
        return is_in(numbers, COUNT(numbers), cp);
    }
}

static int is_ascii_punctuation(uint32_t cp)
{
    return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
           (cp >= '{' && cp <= '~');
}

int tr_unicode_is_punctuation(uint32_t cp)
{
    int category = (int)utf8proc_category((utf8proc_int32_t)cp);

    if (cp < 0x80)
        return is_ascii_punctuation(cp);
    if (cp == 0x166D || cp == 0x111C9)
        return 1;
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO &&
           !is_in(no_punctuation, COUNT(no_punctuation), cp);
}

int tr_unicode_is_opaque(uint32_t cp)
{
    return is_in(opaque, COUNT(opaque), cp);
}
