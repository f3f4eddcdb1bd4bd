/* Copying and comparing memory, for the static binary on x86-64.
 *
 * musl copies with `rep movsq` whatever the length, which takes the processor some thirty cycles to begin; a request is copied some
 * seventy times, in pieces of up to 500 bytes. That was a fifth of the gateway's own time. Here pieces of that length go through two
 * registers of 16 bytes, and only long ones through `rep movsb`. musl's comparison goes byte by byte.
 *
 * Every x86-64 has what is used here. Nothing here may become a call of the very function that it is in: see build.rs for the flags.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint16_t __attribute__((may_alias, aligned(1))) two;
typedef uint32_t __attribute__((may_alias, aligned(1))) four;
typedef uint64_t __attribute__((may_alias, aligned(1))) eight;
typedef uint64_t __attribute__((vector_size(16))) aligned_sixteen;
typedef aligned_sixteen __attribute__((may_alias, aligned(1))) sixteen;

#define AT(type, place) (*(type *)(place))
#define FROM(type, place) (*(const type *)(place))

/* From this length on the string instruction is faster than the loop. */
enum { LONG = 1024 };

/* Fewer than 16 bytes. All is read before anything is written, so they may overlap. */
static inline void few(unsigned char *to, const unsigned char *from, size_t count)
{
    if (count >= 8) {
        eight first = FROM(eight, from), last = FROM(eight, from + count - 8);
        AT(eight, to) = first;
        AT(eight, to + count - 8) = last;
    } else if (count >= 4) {
        four first = FROM(four, from), last = FROM(four, from + count - 4);
        AT(four, to) = first;
        AT(four, to + count - 4) = last;
    } else if (count >= 2) {
        two first = FROM(two, from), last = FROM(two, from + count - 2);
        AT(two, to) = first;
        AT(two, to + count - 2) = last;
    } else if (count == 1) {
        *to = *from;
    }
}

/* 16 to 32 bytes, which may overlap. */
static inline void some(unsigned char *to, const unsigned char *from, size_t count)
{
    sixteen first = FROM(sixteen, from), last = FROM(sixteen, from + count - 16);
    AT(sixteen, to) = first;
    AT(sixteen, to + count - 16) = last;
}

/* More than 32 bytes from the first to the last; right also where `to` lies before `from`. */
static inline void forwards(unsigned char *to, const unsigned char *from, size_t count)
{
    sixteen last = FROM(sixteen, from + count - 32), very_last = FROM(sixteen, from + count - 16);
    unsigned char *end = to + count;
    for (; count > 32; count -= 32, to += 32, from += 32) {
        sixteen one = FROM(sixteen, from), other = FROM(sixteen, from + 16);
        AT(sixteen, to) = one;
        AT(sixteen, to + 16) = other;
    }
    AT(sixteen, end - 32) = last;
    AT(sixteen, end - 16) = very_last;
}

/* The same from the last to the first, where `to` lies behind `from`. */
static inline void backwards(unsigned char *to, const unsigned char *from, size_t count)
{
    sixteen first = FROM(sixteen, from), second = FROM(sixteen, from + 16);
    for (; count > 32; count -= 32) {
        sixteen one = FROM(sixteen, from + count - 32), other = FROM(sixteen, from + count - 16);
        AT(sixteen, to + count - 32) = one;
        AT(sixteen, to + count - 16) = other;
    }
    AT(sixteen, to) = first;
    AT(sixteen, to + 16) = second;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    if (count < 16) {
        few(to, from, count);
    } else if (count <= 32) {
        some(to, from, count);
    } else if (count < LONG) {
        forwards(to, from, count);
    } else {
        void *at = to;
        __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    if (count < 16)
        few(to, from, count);
    else if (count <= 32)
        some(to, from, count);
    else if ((uintptr_t)to - (uintptr_t)from < count)
        backwards(to, from, count);
    else if ((uintptr_t)from - (uintptr_t)to < count)
        forwards(to, from, count);
    else
        return memcpy(to, from, count);
    return to;
}

int memcmp(const void *one, const void *other, size_t count)
{
    const unsigned char *a = one, *b = other;
    for (; count >= 8; count -= 8, a += 8, b += 8) {
        eight x = FROM(eight, a), y = FROM(eight, b);
        if (x != y) {
            x = __builtin_bswap64(x);
            y = __builtin_bswap64(y);
            return x < y ? -1 : 1;
        }
    }
    for (; count; count--, a++, b++) {
        if (*a != *b)
            return *a - *b;
    }
    return 0;
}

int bcmp(const void *one, const void *other, size_t count)
{
    return memcmp(one, other, count);
}
