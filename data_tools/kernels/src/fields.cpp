// The fields of rows of text: where they lie, and the numbers and names that they hold.
#include <stdint.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr double TENS[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                           1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
constexpr int64_t EXACT_DIGITS = 15;  // integers of so many digits are exact in a double

}  // namespace

// starts, ends (columns, rows): where the fields of letters[from, to) lie. 1 unless there are
// `rows` lines of `columns` fields, separated by tabs; sound text has nothing else below '\n'.
EXPORT int dt_fields(const uint8_t* letters, int64_t from, int64_t to, int64_t rows,
                     int64_t columns, int64_t* starts, int64_t* ends) {
  int64_t at = from;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      starts[column * rows + row] = at;
      while (at < to && letters[at] > '\n') ++at;
      if (at >= to || letters[at] != (column + 1 < columns ? '\t' : '\n')) return 1;
      ends[column * rows + row] = at++;
    }
  }
  return at != to;
}

// Integers of 1 to `longest` digits, with a minus before them where `with_sign`; 1 unless all are.
EXPORT int dt_integers(const uint8_t* letters, const int64_t* starts, const int64_t* ends,
                       int64_t rows, int64_t longest, int with_sign, int64_t* out) {
  for (int64_t row = 0; row < rows; ++row) {
    int64_t at = starts[row];
    const int64_t end = ends[row];
    const bool minus = with_sign && at < end && letters[at] == '-';
    at += minus;
    if (end - at < 1 || end - at > longest) return 1;
    int64_t value = 0;
    for (; at < end; ++at) {
      const unsigned digit = letters[at] - unsigned('0');
      if (digit > 9) return 1;
      value = 10 * value + digit;
    }
    out[row] = minus ? -value : value;
  }
  return 0;
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
