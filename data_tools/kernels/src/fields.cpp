// The fields of rows of text: where they lie, and the numbers and names that they hold.
#include <stdint.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr double TENS[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                           1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
constexpr int64_t EXACT_DIGITS = 15;  // integers of so many digits are exact in a double

// The 8 bytes before `end`, the first the lowest; 0 where there are fewer.
uint64_t word_before(const uint8_t* letters, int64_t end) {
  uint8_t few[8] = {};
  uint64_t word;
  if (end < 8) memcpy(few + 8 - end, letters, end);
  memcpy(&word, end < 8 ? few : letters + end - 8, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

// One bit for each of 8 bytes that is '\n' or below: a sum reaches the highest bit of its byte
// where the byte is above, and the products bring what is left together.
uint64_t breaks_in(const uint8_t* letters) {
  const uint64_t word = word_before(letters, 8), low = 0x7F7F7F7F7F7F7F7F;
  const uint64_t flags = ~(((word & low) + 0x7575757575757575) | word | low) >> 7;
  return (flags * 0x0102040810204080) >> 56;
}

// The number that the last `size` (1 to 8) bytes of a word make, two digits at a time, then four,
// then all; `odd` is no longer 0 where one is no digit: it reaches 128 when 118 is added.
uint64_t number_in(uint64_t word, int64_t size, uint64_t& odd) {
  uint64_t digits = (word ^ 0x3030303030303030) & (~uint64_t(0) << (64 - 8 * size));
  odd |= ((digits + 0x7676767676767676) | digits) & 0x8080808080808080;
  digits = (10 * digits + (digits >> 8)) & 0x00FF00FF00FF00FF;
  digits = (100 * digits + (digits >> 16)) & 0x0000FFFF0000FFFF;
  return (10000 * digits + (digits >> 32)) & 0x00000000FFFFFFFF;
}

}  // namespace

// 1 unless this is ASCII with no control characters but tabs and line feeds.
EXPORT int dt_unsound(const uint8_t* letters, int64_t size) {
  uint8_t odd = 0;
  for (int64_t at = 0; at < size; ++at) {
    const uint8_t letter = letters[at];
    odd |= (letter < ' ') & (letter != '\t') & (letter != '\n');
    odd |= letter >= 127;
  }
  return odd;
}

// starts, ends (columns, rows): where the fields lie. 1 unless there are `rows` lines of `columns`
// fields, separated by tabs; sound text has nothing else below '\n'.
EXPORT int dt_fields(const uint8_t* letters, int64_t size, int64_t rows, int64_t columns,
                     int64_t* starts, int64_t* ends) {
  int64_t row = 0, column = 0, start = 0;
  if (columns < 1) return 1;
  for (int64_t base = 0; base < size; base += 64) {
    const uint8_t* part = letters + base;
    uint8_t last[64];
    if (size - base < 64) {
      memset(last, ' ', 64);
      part = static_cast<const uint8_t*>(memcpy(last, part, size - base));
    }
    uint64_t breaks = 0;
    for (int at = 0; at < 64; at += 8) breaks |= breaks_in(part + at) << at;
    for (; breaks; breaks &= breaks - 1) {
      const int64_t end = base + __builtin_ctzll(breaks);
      const bool closes = column + 1 == columns;
      if (row == rows || letters[end] != (closes ? '\n' : '\t')) return 1;
      starts[column * rows + row] = start;
      ends[column * rows + row] = end;
      start = end + 1;
      column = closes ? 0 : column + 1;
      row += closes;
    }
  }
  return row != rows || start != size;
}

// Integers of 1 to `longest` (at most 16) digits, with a minus before them where `with_sign`; 1
// unless all are.
EXPORT int dt_integers(const uint8_t* letters, const int64_t* starts, const int64_t* ends,
                       int64_t rows, int64_t longest, int with_sign, int64_t* out) {
  uint64_t odd = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t end = ends[row];
    const bool minus = with_sign && starts[row] < end && letters[starts[row]] == '-';
    const int64_t size = end - starts[row] - minus;
    if (size < 1 || size > longest) return 1;
    int64_t value = number_in(word_before(letters, end), size < 8 ? size : 8, odd);
    if (size > 8) value += 100000000 * number_in(word_before(letters, end - 8), size - 8, odd);
    out[row] = minus ? -value : value;
  }
  return odd != 0;
}

// Decimals with at most 15 digits, a sign and a dot: the quotient of two integers that a double
// holds exactly, so that it is rounded once (Clinger, 1990). known: 0 where it is none of these.
EXPORT int dt_decimals(const uint8_t* letters, const int64_t* starts, const int64_t* ends,
                       int64_t rows, double* out, uint8_t* known) {
  for (int64_t row = 0; row < rows; ++row) {
    int64_t at = starts[row];
    const int64_t end = ends[row];
    const bool minus = at < end && letters[at] == '-';
    at += minus || (at < end && letters[at] == '+');
    int64_t value = 0, digits = 0, behind = 0;
    bool dot = false, good = true;
    for (; at < end && good; ++at) {
      const unsigned digit = letters[at] - unsigned('0');
      if (digit <= 9) {
        good = ++digits <= EXACT_DIGITS;
        if (good) value = 10 * value + digit;
        behind += dot;
      } else {
        good = letters[at] == '.' && !dot;
        dot = true;
      }
    }
    known[row] = good && digits > 0;
    const double found = known[row] ? double(value) / TENS[behind] : 0;
    out[row] = minus ? -found : found;
  }
  return 0;
}

// The fields one after the other; bounds (rows + 1): where each begins and ends.
EXPORT int dt_joined(const uint8_t* letters, const int64_t* starts, const int64_t* ends,
                     int64_t rows, uint8_t* out, int64_t* bounds) {
  int64_t at = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t size = ends[row] - starts[row];
    bounds[row] = at;
    memcpy(out + at, letters + starts[row], size);
    at += size;
  }
  bounds[rows] = at;
  return 0;
}
