"""Packed states -> float32 columns, compiled: the same bits as contract.view_read.

The rules are feature_view's and view_values'; here they are a loop over a ``Program`` (program.py), which is
a view's definition as numbers. Only IEEE +, -, x, / in the same order, so the bits are the same; a property
test holds both against each other. States are one buffer, seen as 64-bit, 32-bit and 8-bit integers
(``words``); places in it are bytes.

``interval``: what a windowed feature says moves with t only through the hop of t and through whether the
newest event is before t. So a computed row holds from one moment to another. What moves with t itself
(seconds since something) is kept as the time since when.

All in one file: what numba keeps on disk is compiled anew when the file of the function changes, not when
that of a function it calls does.
"""

# Numba's functions have no types of their own.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# ruff: noqa: PLR0917
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from services.contract.view_plan import NONE_US, STATE_VERSION
from services.contract.view_registers import _ALPHA
from services.contract.view_values import DECAY_UNIT

# Operations.
COUNT, SUM, MIN, MAX, MEAN, DISTINCT, DECAYED, RATE, LIFT = range(9)
ANY, HOW_MANY, VALUE, SHARE_OF, NEWEST_IS, CONTAINS, DAY_SIN, DAY_COS = range(9, 17)
# Those that say seconds since a time.
FIRST_EVENT, LAST_EVENT, SECONDS, VALUE_AGE = range(17, 21)
# Numbers of a feature.
OP, HOPS, COLUMN, LOG1P, LOG, A, A_TILES, A_WIDE, A_BASE = range(9)
B, B_TILES, B_WIDE, B_BASE, SIZE, K, FIELD, SCALE, OPERAND, EDGE_HOP = range(9, 19)
FEATURE_INTS = 19
DIVIDE, LIMIT, DEFAULT, P1, P2, P3 = range(6)
FEATURE_FLOATS = 6
# Numbers of a view: which of the groups of states, where in a record of it, ...
GROUP, START, HOP, SLACK, FINGERPRINT, INSTANT, BEGIN, END, VIEW, HAS_LAST, BATCH = range(11)
VIEW_INTS = 11
ADD, LEAST, MOST = range(3)
USER_ID, ITEM_ID, CATEGORY = range(3)
# Numbers of a row of the near cache; then, per feature that says seconds, since when.
ROW_FROM, ROW_UNTIL, ROW_EXPIRES, ROW_USED, ROW_SINCE = range(5)
NEVER = -(1 << 62)
ALWAYS = 1 << 62

_NONE = NONE_US
_MOST = (1 << 63) - 1
_VERSION = STATE_VERSION
_UNIT = float(DECAY_UNIT)
_ALPHAS = np.zeros(257)
for _m, _alpha in _ALPHA.items():
    _ALPHAS[_m] = _alpha
_LN2 = 0.6931471805599453
_ROOT_HALF = 0.7071067811865476
_TWO_PI = 6.283185307179586
_DAY_US = 86_400 * 1_000_000


@njit(cache=True, nogil=True)
def _ln(x):
    m, e = math.frexp(x)
    low = 0
    if m < _ROOT_HALF:
        m = m * 2.0
        low = 1
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    series = 1 / 15
    series = series * square + 1 / 13
    series = series * square + 1 / 11
    series = series * square + 1 / 9
    series = series * square + 1 / 7
    series = series * square + 1 / 5
    series = series * square + 1 / 3
    series = series * square + 1 / 1
    return (e - low) * _LN2 + 2.0 * s * series


@njit(cache=True, nogil=True)
def _day_sine(at_us, ahead_us):
    turn = float((at_us + ahead_us) % _DAY_US) / _DAY_US
    if turn > 0.75:
        x = turn - 1.0
    elif turn > 0.25:
        x = 0.5 - turn
    else:
        x = turn
    x = x * _TWO_PI
    square = x * x
    series = 1.0
    for n in range(15, 1, -2):
        series = 1.0 - series * square / (n * (n - 1))
    return x * series


@njit(cache=True, nogil=True)
def scaled(value, ints, floats, f):
    """The float32 of a feature's value."""
    if ints[f, LOG1P]:
        value = 1.0 + max(value, 0.0)
    if ints[f, LOG]:
        value = _ln(value)
    value = value / floats[f, DIVIDE]
    return np.float32(min(max(value, -floats[f, LIMIT]), floats[f, LIMIT]))


@njit(cache=True, nogil=True)
def _range(tiles, hops, behind, first):
    low = min(max(first, 0), tiles)
    high = tiles
    if hops:
        high = min(max(hops - behind + 1, low), tiles)
    return low, high


@njit(cache=True, nogil=True)
def _total(words, at, place, tiles, wide, base, monoid, hops, behind, first):
    q, u, _ = words
    low, high = _range(tiles, hops, behind, first)
    found: Any = np.int64(0) if monoid == ADD else np.int64(_MOST if monoid == LEAST else _NONE)
    if hops == 0:
        found = q[(at + base) >> 3]
    begin = (at + place) >> 3 if wide else (at + place) >> 2
    for tile in range(begin + low, begin + high):
        value: Any = q[tile] if wide else np.int64(u[tile])
        if monoid == ADD:
            found += value
        elif monoid == LEAST:
            found = min(found, value)
        else:
            found = max(found, value)
    return found


@njit(cache=True, nogil=True)
def _a(words, at, ints, f, monoid, behind, first):
    return _total(
        words, at, ints[f, A], ints[f, A_TILES], ints[f, A_WIDE], ints[f, A_BASE], monoid, ints[f, HOPS],
        behind, first,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _b(words, at, ints, f, behind, first):
    return _total(
        words, at, ints[f, B], ints[f, B_TILES], ints[f, B_WIDE], ints[f, B_BASE], ADD, ints[f, HOPS],
        behind, first,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _distinct(words, at, ints, f, behind, first):
    b = words[2]
    m = ints[f, SIZE]
    low, high = _range(ints[f, A_TILES], ints[f, HOPS], behind, first)
    total, empty = 0.0, 0
    for register in range(m):
        rank: Any = 0
        if ints[f, HOPS] == 0:
            rank = np.int64(b[at + ints[f, A_BASE] + register])
        for tile in range(low, high):
            rank = max(rank, np.int64(b[at + ints[f, A] + tile * m + register]))
        total += math.ldexp(1.0, -rank)
        empty += rank == 0
    raw = _ALPHAS[m] * (m * m) / total
    if raw <= 2.5 * m and empty > 0:
        return m * _ln(m / float(empty))
    return raw


@njit(cache=True, nogil=True)
def _decayed(words, at, ints, weights, f, behind, first):
    u = words[1]
    hops = ints[f, HOPS]
    low, high = _range(ints[f, A_TILES], hops, behind, first)
    begin = (at + ints[f, A]) >> 2
    total = np.int64(0)
    for tile in range(low, high):
        age = min(max(behind + tile, 0), hops)
        total += np.int64(u[begin + tile]) * weights[ints[f, FIELD] + age]
    return total / _UNIT


@njit(cache=True, nogil=True)
def _newest(words, at, ints, f, t, since):
    """The kept events before ``t``, of a batch view before its hop: index of the first, and how many (at most
    k)."""
    q = words[0]
    if ints[f, EDGE_HOP]:
        t = t // ints[f, EDGE_HOP] * ints[f, EDGE_HOP]
    begin, keep = (at + ints[f, A]) >> 3, ints[f, SIZE]
    lead = 0
    for entry in range(keep):
        lead += q[begin + entry] >= t
    count = 0
    while count < ints[f, K] and lead + count < keep:
        us = q[begin + lead + count]
        if us in (_NONE,) or us < since:
            break
        count += 1
    return lead, count


@njit(cache=True, nogil=True)
def since(words, at, ints, f, t, hop_us, behind, first):
    """Since when the seconds of a feature count; NONE_US = its default stands."""
    op = ints[f, OP]
    if op == FIRST_EVENT:
        found = _a(words, at, ints, f, LEAST, behind, first)
        return _NONE if found == _MOST else found
    if op == LAST_EVENT:
        return _a(words, at, ints, f, MOST, behind, first)
    earliest = (t // hop_us - ints[f, HOPS]) * hop_us if ints[f, HOPS] else _NONE
    lead, count = _newest(words, at, ints, f, t, earliest)
    if count == 0:
        return _NONE
    place = ints[f, A] if op == SECONDS else ints[f, FIELD]
    return words[0][((at + place) >> 3) + lead]


@njit(cache=True, nogil=True)
def seconds(from_us, ints, floats, f, t):
    """The float32 of seconds since a time."""
    if from_us == _NONE:
        return np.float32(floats[f, DEFAULT])
    return scaled((t - from_us) / 1_000_000.0, ints, floats, f)


@njit(cache=True, nogil=True)
def _value(words, at, program, f, t, hop_us, behind, first, operand):  # noqa: PLR0911 - a table, compiled
    """(value, whether there is one)."""
    _, ints, floats, weights = program
    op = ints[f, OP]
    if op == COUNT:
        return float(_a(words, at, ints, f, ADD, behind, first)), True
    if op in (LIFT, RATE):
        events = float(_a(words, at, ints, f, ADD, behind, first))
        hits = float(_b(words, at, ints, f, behind, first))
        if op == RATE:
            return (hits + floats[f, P1]) / (max(events, hits) + floats[f, P2]), True
        odds = (hits + floats[f, P1]) / (max(events - hits, 0.0) + floats[f, P2])
        return odds * floats[f, P3], True
    if op == DECAYED:
        return _decayed(words, at, ints, weights, f, behind, first), True
    if op == SUM:
        return _a(words, at, ints, f, ADD, behind, first) / float(ints[f, SCALE]), True
    if op == MIN:
        found = _a(words, at, ints, f, LEAST, behind, first)
        return found / float(ints[f, SCALE]), found != _MOST
    if op == MAX:
        found = _a(words, at, ints, f, MOST, behind, first)
        return found / float(ints[f, SCALE]), found != _NONE
    if op == MEAN:
        total = _a(words, at, ints, f, ADD, behind, first)
        count = _b(words, at, ints, f, behind, first)
        return float(total) / float(max(count, 1) * ints[f, SCALE]), count > 0
    if op == DISTINCT:
        return _distinct(words, at, ints, f, behind, first), True
    if op == DAY_SIN:
        return _day_sine(t, 0), True
    if op == DAY_COS:
        return _day_sine(t, _DAY_US // 4), True
    return _of_last(words, at, ints, f, t, hop_us, operand)


@njit(cache=True, nogil=True)
def _of_last(words, at, ints, f, t, hop_us, operand):
    op, q = ints[f, OP], words[0]
    earliest = (t // hop_us - ints[f, HOPS]) * hop_us if ints[f, HOPS] else _NONE
    lead, count = _newest(words, at, ints, f, t, earliest)
    if op == HOW_MANY:
        return float(count), True
    if op == ANY:
        return (1.0 if count else 0.0), True
    field = ((at + ints[f, FIELD]) >> 3) + lead
    if op == VALUE:
        return (q[field] / float(ints[f, SCALE]) if count else 0.0), count > 0
    if op == NEWEST_IS:
        return (1.0 if count and q[field] == operand else 0.0), True
    same = 0
    for entry in range(field, field + count):
        same += q[entry] == operand
    if op == CONTAINS:
        return (1.0 if same else 0.0), True
    return same / float(max(count, 1)), True


@njit(cache=True, nogil=True)
def clock(words, at, views, v, t):
    """(whether the state is missing, hops from its newest tile to t, the first tile that counts)."""
    q, u, b = words
    if views[v, INSTANT]:
        return False, 0, 0
    newest = q[(at + 8) >> 3]
    bad = b[at] != _VERSION or np.int64(u[(at + 4) >> 2]) != views[v, FINGERPRINT]
    if bad or newest == _NONE:
        return True, 0, 0
    behind = t // views[v, HOP] - newest // views[v, HOP]
    return behind < -views[v, SLACK], behind, (-behind if newest < t and not views[v, BATCH] else 1 - behind)


@njit(cache=True, nogil=True)
def feature(words, at, program, f, t, hop_us, behind, first, operand):
    """The float32 of a feature of a state that is not missing."""
    _, ints, floats, _ = program
    if ints[f, OP] >= FIRST_EVENT:
        return seconds(since(words, at, ints, f, t, hop_us, behind, first), ints, floats, f, t)
    value, known = _value(words, at, program, f, t, hop_us, behind, first, operand)
    return scaled(value, ints, floats, f) if known else np.float32(floats[f, DEFAULT])


@njit(cache=True, nogil=True)
def _contained(words, at, program, f, t, hop_us, user, items, categories, out):
    """Whether one state's newest events contain what each of n rows is compared with."""
    _, ints, floats, _ = program
    earliest = (t // hop_us - ints[f, HOPS]) * hop_us if ints[f, HOPS] else _NONE
    lead, count = _newest(words, at, ints, f, t, earliest)
    begin, q, column = ((at + ints[f, FIELD]) >> 3) + lead, words[0], ints[f, COLUMN]
    yes, no = scaled(1.0, ints, floats, f), scaled(0.0, ints, floats, f)
    for j in range(out.shape[0]):
        operand = user
        if ints[f, OPERAND] == ITEM_ID:
            operand = items[j]
        elif ints[f, OPERAND] == CATEGORY:
            operand = categories[j]
        found = False
        for entry in range(begin, begin + count):
            found |= q[entry] == operand
        out[j, column] = yes if found else no


@njit(cache=True, nogil=True)
def evaluate(words, starts, strides, program, t, user, items, categories, out, mask, newest):
    """All features of a program for n rows: ``out`` [n, columns]; ``mask`` [n] gets the bits of views without
    state, ``newest`` [views of the set] the newest event of those with. The record of row j in group g begins
    at starts[g] + j x strides[g]; items, categories [n] are what features are compared with."""
    views, ints, floats, _ = program
    for v in range(views.shape[0]):
        group, once = views[v, GROUP], strides[views[v, GROUP]] == 0
        missing, behind, first = False, 0, 0
        for j in range(out.shape[0]):
            at = starts[group] + j * strides[group] + views[v, START]
            if j == 0 or not once:
                missing, behind, first = clock(words, at, views, v, t)
                if not missing and not views[v, INSTANT]:
                    newest[views[v, VIEW]] = max(newest[views[v, VIEW]], words[0][(at + 8) >> 3])
            if missing:
                mask[j] |= np.uint32(1 << views[v, VIEW])
            for f in range(views[v, BEGIN], views[v, END]):
                if once and out.shape[0] > 1 and ints[f, OP] == CONTAINS and not missing:
                    if j == 0:
                        _contained(words, at, program, f, t, views[v, HOP], user, items, categories, out)
                    continue
                if missing:
                    out[j, ints[f, COLUMN]] = np.float32(floats[f, DEFAULT])
                    continue
                operand = user
                if ints[f, OPERAND] == ITEM_ID:
                    operand = items[j]
                elif ints[f, OPERAND] == CATEGORY:
                    operand = categories[j]
                out[j, ints[f, COLUMN]] = feature(
                    words, at, program, f, t, views[v, HOP], behind, first, operand
                )


@njit(cache=True, nogil=True)
def interval(words, at, views, v, t, missing, low, high):
    """[low, high) narrowed to the moments at which this state says what it says at t."""
    newest = words[0][(at + 8) >> 3]
    if words[2][at] != _VERSION or newest == _NONE:
        return low, high
    hop = views[v, HOP]
    begin = t // hop * hop
    low, high = max(low, begin), min(high, begin + hop)
    if newest < t:
        return max(low, newest + 1), high
    if views[v, HAS_LAST] and not missing:
        return max(low, t), min(high, t + 1)
    return low, min(high, newest + 1)


@njit(cache=True, nogil=True)
def spread(rows, masks, index, columns, out, mask):
    """Gives each candidate the columns and bits of its category: ``rows`` [c, columns], ``index`` [n]."""
    for n in range(index.shape[0]):
        row = index[n]
        mask[n] |= masks[row]
        for column in range(columns.shape[0]):
            out[n, columns[column]] = rows[row, column]


@njit(cache=True, nogil=True)
def _refresh(words, at, program, t, r, meta, values, masks, newest):
    """Computes one row anew, as of t."""
    views, ints, floats, _ = program
    low, high, slot = np.int64(NEVER), np.int64(ALWAYS), ROW_SINCE
    masks[r] = 0
    for v in range(views.shape[0]):
        place = at + views[v, START]
        missing, behind, first = clock(words, place, views, v, t)
        low, high = interval(words, place, views, v, t, missing, low, high)
        newest[r, v] = NEVER if missing else words[0][(place + 8) >> 3]
        if missing:
            masks[r] |= np.uint32(1 << views[v, VIEW])
        for f in range(views[v, BEGIN], views[v, END]):
            if ints[f, OP] >= FIRST_EVENT:
                meta[r, slot] = (
                    _NONE if missing else since(words, place, ints, f, t, views[v, HOP], behind, first)
                )
                slot += 1
            elif missing:
                values[r, f] = floats[f, DEFAULT]
            else:
                values[r, f] = feature(words, place, program, f, t, views[v, HOP], behind, first, 0)
    meta[r, ROW_FROM], meta[r, ROW_UNTIL] = low, high


@njit(cache=True, nogil=True)
def gather(rows, words, stride, program, copied, moving, t, now, tick, held, answered, stale):
    """Fills the rows of the answer whose states are held; ``stale`` gets the places of the others.
    Returns (how many of these, how many rows were computed). ``copied``, ``moving``: features whose columns
    are kept, and those that say seconds, with the columns of the answer."""
    views, ints, floats, _ = program
    meta, values, masks, newest = held
    out, mask, ages = answered
    unknown, computed = 0, 0
    for n in range(rows.shape[0]):
        r = rows[n]
        if r < 0 or meta[r, ROW_EXPIRES] < now:
            stale[unknown] = n
            unknown += 1
            continue
        meta[r, ROW_USED] = tick
        if t < meta[r, ROW_FROM] or t >= meta[r, ROW_UNTIL]:
            _refresh(words, r * stride, program, t, r, meta, values, masks, newest)
            computed += 1
        for i in range(copied.shape[0]):
            out[n, copied[i, 1]] = values[r, copied[i, 0]]
        for i in range(moving.shape[0]):
            out[n, moving[i, 1]] = seconds(meta[r, ROW_SINCE + i], ints, floats, moving[i, 0], t)
        mask[n] |= masks[r]
        for v in range(views.shape[0]):
            ages[v] = max(ages[v], newest[r, v])
    return unknown, computed


@njit(cache=True, nogil=True)
def victims(meta, tick, hand, limit, out):
    """The rows that leave next, none of this request's; where the hand stands then."""
    found = 0
    while found < out.shape[0]:
        if meta[hand, ROW_USED] != tick:
            out[found] = hand
            found += 1
        hand = hand + 1 if hand + 1 < limit else 0
    return hand


@njit(cache=True, nogil=True)
def expire(rows, meta):
    had = 0
    for r in rows:
        if r >= 0 and meta[r, ROW_EXPIRES] != NEVER:
            meta[r, ROW_EXPIRES] = NEVER
            had += 1
    return had
