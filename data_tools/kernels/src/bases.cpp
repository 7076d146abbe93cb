// Lines of letters as codes, and windows gathered from codes.
#include <stdint.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr uint8_t AMBIGUOUS = 4;
constexpr uint8_t UPPER = 0xDF;
constexpr int64_t ROOM = 8192;  // letters that are mapped together, with what ends their lines

// Of bytes alone and without a branch, so that a compiler fits as many as it can into a register.
inline uint8_t when(bool holds, uint8_t value) { return uint8_t(-uint8_t(holds)) & value; }

// Every byte as a code; what is none of the four bases is ambiguous.
void map(const uint8_t* __restrict letters, int64_t count, uint8_t* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t letter = letters[i] & UPPER;
    out[i] = AMBIGUOUS ^ (when(letter == 'A', 4) | when(letter == 'C', 5) |
                          when(letter == 'G', 6) | when(letter == 'T', 7));
  }
}

bool all_known(const uint8_t* codes, int64_t count) {
  uint8_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= codes[i];
  return !(found & AMBIGUOUS);
}

// The lines of a stretch of text; see dt_codes.
struct Lines {
  const uint8_t *raw, *last, *line_end;
  int64_t left, width, ends;

  // Call use(letters, count) for each line, or piece of one, of the next `wanted` letters.
  template <class Use> bool each(int64_t wanted, Use use) {
    while (wanted > 0) {
      if (left == 0) {
        if (last - raw < ends || memcmp(raw, line_end, ends)) return false;
        raw += ends, left = width;
      }
      const int64_t count = left < wanted ? left : wanted;
      if (count < 1 || last - raw < count || !use(raw, count)) return false;
      raw += count, left -= count, wanted -= count;
    }
    return true;
  }
};

}  // namespace

// raw: `size` bytes that begin in `column` of a line of `width` letters; every line ends with the
// `ends` bytes of line_end; table (256): code of each letter, above 4 for an illegal one; out:
// `wanted` codes. 1 unless raw is exactly that.
EXPORT int dt_codes(const uint8_t* raw, int64_t size, int64_t column, int64_t width,
                    const uint8_t* line_end, int64_t ends, const uint8_t* table, uint8_t* out,
                    int64_t wanted) {
  Lines lines = {raw, raw + size, line_end, width - column, width, ends};
  uint8_t mapped[ROOM];
  while (wanted > 0) {
    // Letters are mapped line ends and all, since short lines leave much to be done one by one.
    const Lines before = lines;
    const int64_t some = wanted < ROOM / 2 ? wanted : ROOM / 2;
    const int64_t there = lines.last - lines.raw < ROOM ? lines.last - lines.raw : ROOM;
    map(lines.raw, there, mapped);
    uint8_t* to = out;
    const auto copy = [&](const uint8_t* letters, int64_t count) {
      const int64_t at = letters - before.raw;
      if (at + count <= there) memcpy(to, mapped + at, count);
      else map(letters, count, to);
      to += count;
      return true;
    };
    if (!lines.each(some, copy)) return 1;
    if (!all_known(out, some)) {
      // Only here is the table asked what is legal.
      Lines again = before;
      to = out;
      const auto ask = [&](const uint8_t* letters, int64_t count) {
        uint8_t largest = 0;
        for (int64_t i = 0; i < count; ++i) {
          to[i] = table[letters[i]];
          largest = to[i] > largest ? to[i] : largest;
        }
        to += count;
        return largest <= AMBIGUOUS;
      };
      if (!again.each(some, ask)) return 1;
    }
    out += some, wanted -= some;
  }
  return lines.raw != lines.last;
}

// Windows of `width` codes from these offsets into these rows of out; 1 where one lies outside.
EXPORT int dt_gather(const uint8_t* codes, int64_t size, const int64_t* offsets,
                     const int64_t* rows, int64_t count, int64_t width, uint8_t* out,
                     int64_t out_rows) {
  for (int64_t i = 0; i < count; ++i) {
    if (offsets[i] < 0 || offsets[i] > size - width || rows[i] < 0 || rows[i] >= out_rows) return 1;
    memcpy(out + rows[i] * width, codes + offsets[i], width);
  }
  return 0;
}
