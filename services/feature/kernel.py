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
# Numbers of a row of the near cache; then per view its newest event, then per feature that says seconds since
# when, then, as float32, the candidate's row of the answer.
ROW_FROM, ROW_UNTIL, ROW_EXPIRES, ROW_USED, ROW_MASK, ROW_NEWEST = range(6)
NEVER = -(1 << 62)
ALWAYS = 1 << 62

# Division by zero gives what IEEE says: the check for an exception would cost as much as the division.
_compiled = njit(cache=True, nogil=True, error_model="numpy")
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
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF, _ONE, _TWO = np.uint64(32), np.uint64(1), np.uint64(2)
# Where a loop runs over all candidates its places are unsigned and its arrays flat: of each signed place
# numba asks whether it counts from the end, which costs ten times as much as the copy itself.
_FROM, _UNTIL, _EXPIRES = np.uint64(ROW_FROM), np.uint64(ROW_UNTIL), np.uint64(ROW_EXPIRES)
_USED, _MASK, _NEWEST = np.uint64(ROW_USED), np.uint64(ROW_MASK), np.uint64(ROW_NEWEST)


@_compiled
def _ln(x):
    m, e = math.frexp(x)
    return _ln_of(m, float(e))


@_compiled
def _ln_of(m, e):
    low = 1.0 if m < _ROOT_HALF else 0.0
    m = m * (1.0 + low)
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


@_compiled
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


@_compiled
def scaled(value, ints, floats, f):
    """The float32 of a feature's value."""
    if ints[f, LOG1P]:
        value = 1.0 + max(value, 0.0)
    if ints[f, LOG]:
        value = _ln(value)
    value = value / floats[f, DIVIDE]
    return np.float32(min(max(value, -floats[f, LIMIT]), floats[f, LIMIT]))


@_compiled
def _range(tiles, hops, behind, first):
    low = min(max(first, 0), tiles)
    high = tiles
    if hops:
        high = min(max(hops - behind + 1, low), tiles)
    return low, high


@_compiled
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


@_compiled
def _a(words, at, ints, f, monoid, behind, first):
    return _total(
        words, at, ints[f, A], ints[f, A_TILES], ints[f, A_WIDE], ints[f, A_BASE], monoid, ints[f, HOPS],
        behind, first,
    )  # fmt: skip


@_compiled
def _b(words, at, ints, f, behind, first):
    return _total(
        words, at, ints[f, B], ints[f, B_TILES], ints[f, B_WIDE], ints[f, B_BASE], ADD, ints[f, HOPS],
        behind, first,
    )  # fmt: skip


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
def seconds(from_us, ints, floats, f, t):
    """The float32 of seconds since a time."""
    if from_us == _NONE:
        return np.float32(floats[f, DEFAULT])
    return scaled((t - from_us) / 1_000_000.0, ints, floats, f)


@_compiled
def _all_seconds(begins, at, table, ints, floats, f, t, to, answered):
    """``seconds`` since what stands ``at`` each of the rows, to the places ``to`` of the answer: the same
    operations, a loop for each so that several rows are done at once."""
    out, width = answered[0], np.uint64(answered[1])
    divide, limit, default = floats[f, DIVIDE], floats[f, LIMIT], np.float32(floats[f, DEFAULT])
    size = np.uint64(begins.shape[0])
    x, known = np.empty(begins.shape[0]), np.empty(begins.shape[0], np.bool_)
    for i in range(size):
        begun = table[begins[i] + at]
        known[i] = begun != _NONE
        x[i] = (t - begun) / 1_000_000.0
    if ints[f, LOG1P]:
        for i in range(size):
            x[i] = 1.0 + max(x[i], 0.0)
    if ints[f, LOG]:
        bits, exponent = x.view(np.int64), np.empty(begins.shape[0])
        for i in range(size):
            # As frexp, of what is a normal number above 0.
            exponent[i] = (bits[i] >> 52) - 1022
            bits[i] = bits[i] & ((1 << 52) - 1) | (1022 << 52)
        for i in range(size):
            x[i] = _ln_of(x[i], exponent[i])
    column = np.uint64(ints[f, COLUMN])
    for i in range(size):
        value = np.float32(min(max(x[i] / divide, -limit), limit))
        out[to[i] * width + column] = value if known[i] else default


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
def feature(words, at, program, f, t, hop_us, behind, first, operand):
    """The float32 of a feature of a state that is not missing."""
    _, ints, floats, _ = program
    if ints[f, OP] >= FIRST_EVENT:
        return seconds(since(words, at, ints, f, t, hop_us, behind, first), ints, floats, f, t)
    value, known = _value(words, at, program, f, t, hop_us, behind, first, operand)
    return scaled(value, ints, floats, f) if known else np.float32(floats[f, DEFAULT])


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
def fill(data, spans, first, rows, size, out, start, stride):
    """Copies states from a reply, whose value ``first`` + i ends up at out[start + rows[i] x stride]; zeros
    (no state) for what has not ``size`` bytes. ``spans``: where each value of ``data`` begins, its length."""
    for i in range(rows.shape[0]):
        to, at = np.uint64(start + rows[i] * stride), np.uint64(spans[first + i, 0])
        if spans[first + i, 1] == size:
            for byte in range(np.uint64(size)):
                out[to + byte] = data[at + byte]
        else:
            for byte in range(np.uint64(size)):
                out[to + byte] = 0


@_compiled
def _refresh(words, at, program, t, row, image, table, values):
    """Computes one row anew, as of t. ``row``, ``image``: where it begins in table, its columns in values."""
    views, ints, floats, _ = program
    low, high = np.int64(NEVER), np.int64(ALWAYS)
    mask, slot = np.int64(0), row + ROW_NEWEST + views.shape[0]
    for v in range(views.shape[0]):
        place = at + views[v, START]
        missing, behind, first = clock(words, place, views, v, t)
        low, high = interval(words, place, views, v, t, missing, low, high)
        table[row + ROW_NEWEST + v] = NEVER if missing else words[0][(place + 8) >> 3]
        if missing:
            mask |= 1 << views[v, VIEW]
        for f in range(views[v, BEGIN], views[v, END]):
            if ints[f, OP] >= FIRST_EVENT:
                table[slot] = (
                    _NONE if missing else since(words, place, ints, f, t, views[v, HOP], behind, first)
                )
                slot += 1
            elif missing:
                values[image + ints[f, COLUMN]] = floats[f, DEFAULT]
            else:
                values[image + ints[f, COLUMN]] = feature(
                    words, place, program, f, t, views[v, HOP], behind, first, 0
                )
    table[row + ROW_FROM], table[row + ROW_UNTIL], table[row + ROW_MASK] = low, high, mask


@_compiled
def gather(rows, places, words, stride, program, moving, t, now, tick, held, answered, stale):
    """Fills the answer's rows ``places`` from the rows held; ``stale`` gets the places of what is not held.
    Returns (how many of these, how many rows were computed, how many categories the answer has now).
    ``moving``: the features that say seconds."""
    table, values, length, image = held
    size, row_length = np.uint64(rows.shape[0]), np.uint64(length)
    # Of the rows that are held: where they begin, and their places.
    begins, to = np.empty(rows.shape[0], np.uint64), np.empty(rows.shape[0], np.uint64)
    had, unknown, computed = np.uint64(0), 0, 0
    for i in range(size):
        begin = np.uint64(rows[i]) * row_length
        if rows[i] < 0 or table[begin + _EXPIRES] < now:
            stale[unknown] = places[i]
            unknown += 1
            continue
        table[begin + _USED] = tick
        begins[had], to[had] = begin, np.uint64(places[i])
        had += _ONE
        if t < table[begin + _FROM] or t >= table[begin + _UNTIL]:
            first = np.int64(begin * _TWO) + image
            _refresh(words, rows[i] * stride, program, t, np.int64(begin), first, table, values)
            computed += 1
    count = _copied(begins[:had], to[:had], program[0], held, answered)
    for m in range(moving.shape[0]):
        at = np.uint64(ROW_NEWEST + program[0].shape[0] + m)
        _all_seconds(begins[:had], at, table, program[1], program[2], moving[m], t, to[:had], answered)
    return unknown, computed, count


@_compiled
def _copied(begins, to, views, held, answered):
    """The rows that begin at ``begins`` to the places ``to`` of the answer; how many categories it has."""
    table, values, _, image = held
    out, width, column, mask, newest, index, found, slots, count = answered
    w, picture, size = np.uint64(width), np.uint64(image), np.uint64(begins.shape[0])
    for i in range(size):
        first, at = begins[i] * _TWO + picture, to[i] * w
        for c in range(w):
            out[at + c] = values[first + c]
        mask[to[i]] = np.uint32(table[begins[i] + _MASK])
    for v in range(np.uint64(views.shape[0])):
        most = newest[views[v, VIEW]]
        for i in range(size):
            most = max(most, table[begins[i] + _NEWEST + v])
        newest[views[v, VIEW]] = most
    last = np.uint64(slots.shape[0] - 1)
    for i in range(size):
        category = np.int64(out[to[i] * w + np.uint64(column)])
        at = ((np.uint64(category) * _GOLDEN) >> _HALF) & last
        while slots[at] != 0 and found[np.uint64(slots[at] - 1)] != category:
            at = (at + _ONE) & last
        if slots[at] == 0:
            found[count] = category
            count += 1
            slots[at] = count
        index[to[i]] = slots[at] - 1
    return count


@_compiled
def _spread(index, values, masks, columns, out, width, mask):
    """Gives each candidate the columns and bits of its category."""
    had, w = np.uint64(columns.shape[0]), np.uint64(width)
    for n in range(np.uint64(index.shape[0])):
        row = np.uint64(index[n])
        mask[n] |= masks[row]
        for c in range(had):
            out[n * w + np.uint64(columns[c])] = values[row * had + c]


@_compiled
def complete(words, starts, strides, programs, columns, t, user, ids, answered, request, bits, missing):
    """Everything of an answer but what is kept near, when all rows are gathered. ``programs``: of the
    request, per category (``columns``: its columns of the answer), per candidate. ``request``: [1, columns]
    and the mask [1] of the request's own. ``bits``: of the views of an item alone, and of all that a
    candidate has. ``missing`` [n] gets 1 where an item has no state at all; returns how many these are."""
    out, width, _, mask, newest, index, found, _, count = answered
    own, per_category, pair = programs
    none = np.zeros(1, np.int64)
    evaluate(words, starts, strides, own, t, user, none, none, request[0], request[1], newest)
    if columns.shape[0] and count:
        values, masks = np.empty((count, columns.shape[0]), np.float32), np.zeros(count, np.uint32)
        each = found[:count]
        evaluate(words, starts, strides, per_category, t, user, each, each, values, masks, newest)
        _spread(index, values.reshape(-1), masks, columns, out, width, mask)
    if pair[0].shape[0] and mask.shape[0]:
        rows = out.reshape(mask.shape[0], width)
        evaluate(words, starts, strides, pair, t, user, ids, found[index], rows, mask, newest)
    absent = 0
    for n in range(np.uint64(mask.shape[0])):
        missing[n] = (mask[n] & bits[0]) == bits[0]
        absent += missing[n]
        mask[n] &= bits[1]
    return absent


@_compiled
def victims(rows, tick, hand, limit, out):
    """The rows that leave next, none of this request's; where the hand stands then."""
    found = 0
    while found < out.shape[0]:
        if rows[hand, ROW_USED] != tick:
            out[found] = hand
            found += 1
        hand = hand + 1 if hand + 1 < limit else 0
    return hand


@_compiled
def renew(rows, which, expires, tick):
    """Rows whose states have just been read; computed when asked for: no moment is in [ALWAYS, NEVER)."""
    for r in which:
        rows[r, ROW_FROM], rows[r, ROW_UNTIL] = ALWAYS, NEVER
        rows[r, ROW_EXPIRES], rows[r, ROW_USED] = expires, tick


@_compiled
def expire(which, rows):
    """Rows (-1 = none) that are to be read again; how many of them were held."""
    had = 0
    for r in which:
        if r >= 0 and rows[r, ROW_EXPIRES] != NEVER:
            rows[r, ROW_EXPIRES] = NEVER
            had += 1
    return had
