"""Slow float64 references from the formulas; nothing here imports daal_mmdet."""

import numpy as np


# --- focal losses ---------------------------------------------------------------------
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    x = np.asarray(x, dtype=np.float64)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def softplus(x):
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, np.asarray(x, dtype=np.float64))


def sigmoid_focal(logits, labels, gamma, alpha, pos_weight=None):
    """Loss and derivative of every entry, by loops over rows and classes."""
    logits = np.asarray(logits, dtype=np.float64)
    num_rows, num_classes = logits.shape
    a_pos, a_neg = (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)
    gammas = np.broadcast_to(np.asarray(gamma, np.float64), num_classes)
    loss, grad = np.zeros_like(logits), np.zeros_like(logits)
    for i in range(num_rows):
        for c, gamma in enumerate(gammas):
            sign = -1.0 if labels[i] == c else 1.0
            weight = a_pos if labels[i] == c else a_neg
            if labels[i] == c and pos_weight is not None:
                weight = weight * pos_weight[c]
            # The loss of a positive entry at s is that of a negative one at -s.
            s = sign * logits[i, c]
            p, log_term = sigmoid(s), softplus(s)
            loss[i, c] = weight * p**gamma * log_term
            slope = p**gamma * (gamma * (1 - p) * log_term + p)
            grad[i, c] = weight * sign * slope
    return loss, grad


def soft_sigmoid_focal(logits, targets, gamma, alpha, pos_weight=None):
    """Loss of every entry for targets in [0, 1]."""
    logits = np.asarray(logits, dtype=np.float64)
    p = sigmoid(logits)
    v = np.ones(logits.shape[1]) if pos_weight is None else np.asarray(pos_weight)
    bce = v * targets * softplus(-logits) + (1 - targets) * softplus(logits)
    distance = targets * (1 - p) + (1 - targets) * p
    balance = 1.0 if alpha is None else alpha * targets + (1 - alpha) * (1 - targets)
    return balance * distance**gamma * bce


def quality_focal(logits, labels, scores, beta, pos_weight=None):
    """Loss of every entry, by loops."""
    logits = np.asarray(logits, dtype=np.float64)
    betas = np.broadcast_to(np.asarray(beta, np.float64), logits.shape[1])
    loss = np.zeros_like(logits)
    for i, row in enumerate(logits):
        for c, s in enumerate(row):
            t = scores[i] if labels[i] == c else 0.0
            bce = t * softplus(-s) + (1 - t) * softplus(s)
            loss[i, c] = abs(t - sigmoid(s)) ** betas[c] * bce
            if labels[i] == c and pos_weight is not None:
                loss[i, c] *= pos_weight[c]
    return loss


def log_softmax(logits):
    """Row-wise log of the softmax."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax_focal(logits, targets, gamma, alpha, class_weight=None):
    """Loss of every row for a distribution over C + 1 columns, background last."""
    log_p = log_softmax(logits)
    loss = np.zeros(len(log_p))
    last = log_p.shape[1] - 1
    gammas = np.broadcast_to(np.asarray(gamma, np.float64), last + 1)
    for i in range(log_p.shape[0]):
        for c, gamma in enumerate(gammas):
            term = -targets[i, c] * (1 - np.exp(log_p[i, c])) ** gamma * log_p[i, c]
            if alpha is not None:
                term *= 1 - alpha if c == last else alpha
            if class_weight is not None:
                term *= class_weight[c]
            loss[i] += term
    return loss


def confusion(logits, targets, class_weight):
    """Cross entropy among the classes, of rows that hold an object."""
    return softmax_focal(logits, np.asarray(targets), 0.0, None, class_weight).sum()


# --- nuclear norm ---------------------------------------------------------------------
def nuclear_norm(matrix):
    """Sum of singular values, and the polar factor U V^T of the non-null directions."""
    U, S, Vh = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    keep = 1e-10 * max(S.max(initial=0.0), 1e-300) < S
    return S.sum(), U[:, keep] @ Vh[keep]


def batch_nuclear_norm_loss(logits, normalization):
    """BNM over all rows of (B, C) logits."""
    A = np.exp(log_softmax(logits))
    B, C = A.shape
    norm, _ = nuclear_norm(A)
    if normalization == 'bound':
        return 1 - norm / np.sqrt(B * min(B, C))
    return -norm / (B if normalization == 'batch' else min(B, C))


# --- filters of DAALLoss --------------------------------------------------------------
class ClassShareFilter:
    """One scalar Kalman filter a class, by loops."""

    def __init__(self, num_classes, floor=1e-4, process_noise=1e-8):
        self.x = [1.0 / num_classes] * num_classes
        prior = 1.0 / num_classes
        self.P = [prior * (1 - prior)] * num_classes
        self.floor, self.process_noise = floor, process_noise

    def observe(self, counts):
        """Measure the shares of one iteration; no sample, no step."""
        n = float(sum(counts))
        if n == 0:
            return
        for c, count in enumerate(counts):
            P = self.P[c] + self.process_noise
            share = min(max(self.x[c], self.floor), 1 - self.floor)
            R = share * (1 - share) / max(n, 1.0)
            K = P / (P + R)
            self.x[c] += K * (count / max(n, 1.0) - self.x[c])
            self.P[c] = (1 - K) ** 2 * P + K**2 * R

    def weights(self, tau=0.5, kappa=1.0, max_weight=3.0):
        """Weight of every class."""
        if len(self.x) == 1:
            return np.ones(1)
        top = max(self.x)
        out = []
        for x, P in zip(self.x, self.P, strict=True):
            bound = max(x - kappa * np.sqrt(P), self.floor)
            out.append(min(max((top / bound) ** tau, 1.0), max_weight))
        return np.array(out)


def proportion_filter(
    losses,
    trend_noise=1e-3,
    forgetting=0.95,
    fraction=0.1,
    cycle=None,
    cycle_range=(1, 100),
):
    """Gains and held proportions of the task filter, with filterpy's Kalman filter."""
    from filterpy.kalman import KalmanFilter

    kf = KalmanFilter(dim_x=2, dim_z=1)
    kf.F = np.array([[1.0, 1.0], [0.0, 1.0]])
    kf.H = np.array([[1.0, 0.0]])
    gains, proportions = [], []
    proportion, next_update = 0.0, 0
    for k, z in enumerate(losses, start=1):
        if k == 1:
            kf.x = np.array([z, 0.0])
            scale = max(abs(z), 1e-6) ** 2
            kf.P = scale * np.diag([1.0, 0.01])
            kf.R = np.array([[0.01 * scale]])
        scale = max(abs(kf.x[0]), 1e-6) ** 2
        kf.Q = trend_noise**2 * scale * np.array([[1 / 3, 1 / 2], [1 / 2, 1.0]])
        kf.predict()
        kf.update(z)
        gain = kf.K[0, 0]
        residual = z - kf.x[0]
        R = forgetting * kf.R[0, 0] + (1 - forgetting) * (residual**2 + kf.P[0, 0])
        kf.R = np.array([[max(R, 1e-6 * scale)]])
        if k >= next_update:
            proportion = 1 - gain
            T = cycle
            if T is None:
                T = fraction * abs(kf.x[0]) / (abs(kf.x[1]) + np.sqrt(kf.P[1, 1]))
                T = int(np.round(np.clip(T, *cycle_range)))
            next_update = k + T
        gains.append(gain)
        proportions.append(proportion)
    return np.array(gains), np.array(proportions)


# --- detection metrics ----------------------------------------------------------------
def box_iou(a, b):
    """IoU of two boxes (x, y, w, h)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


def coco_average_precision(truths, detections, thresholds, max_detections=100):
    """AP of one class at each IoU threshold; NaN without ground truth.

    ``truths[i]`` are the boxes of image i, ``detections[i]`` its (score, box) pairs.
    Greedy matching by falling score, precision made monotonous from the right and read
    at 101 recalls.
    """
    total = sum(len(boxes) for boxes in truths)
    if total == 0:
        return np.full(len(thresholds), np.nan)
    out = []
    for threshold in thresholds:
        flags = []
        for boxes, found in zip(truths, detections, strict=True):
            taken = set()
            ranked = sorted(found, key=lambda pair: -pair[0])[:max_detections]
            for score, box in ranked:
                best, best_iou = None, threshold
                for j, truth in enumerate(boxes):
                    if j not in taken and box_iou(box, truth) >= best_iou:
                        best, best_iou = j, box_iou(box, truth)
                if best is not None:
                    taken.add(best)
                flags.append((score, best is not None))
        flags.sort(key=lambda pair: -pair[0])
        hits, precisions, recalls = 0, [], []
        for rank, (_, hit) in enumerate(flags, start=1):
            hits += hit
            precisions.append(hits / rank)
            recalls.append(hits / total)
        values = []
        for wanted in np.linspace(0, 1, 101):
            reached = [
                p for p, r in zip(precisions, recalls, strict=True) if r >= wanted
            ]
            values.append(max(reached, default=0.0))
        out.append(np.mean(values))
    return np.array(out)


# --- sequences ------------------------------------------------------------------------
def numeric_gradient(function, x, step=1e-6):
    """Central differences of a scalar function of an array."""
    x = np.array(x, dtype=np.float64)
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        there, back = x.copy(), x.copy()
        there[index] += step
        back[index] -= step
        grad[index] = (function(there) - function(back)) / (2 * step)
    return grad


def _filter(F, H, Q, R, P, B=None):
    """A filterpy filter with these matrices, at x = 0."""
    from filterpy.kalman import KalmanFilter

    m, n = np.shape(H)
    oracle = KalmanFilter(dim_x=n, dim_z=m, dim_u=0 if B is None else np.shape(B)[1])
    oracle.x = np.zeros(n)
    for name, value in dict(F=F, H=H, Q=Q, R=R, P=P, B=B).items():
        if value is not None:
            setattr(oracle, name, np.array(value, dtype=np.float64))
    return oracle


def kalman_loss(pred, true, P, F, H, Q, R, B=None, control=None, mask=None):
    """Loss of every entry and P after each sequence, by filterpy step by step."""
    loss = np.zeros_like(true)
    covariances = []
    for b in range(len(pred)):
        oracle = _filter(F, H, Q, R, P, B)
        for t in range(pred.shape[1]):
            if mask is not None and not mask[b, t]:
                continue
            oracle.x = pred[b, t].copy()
            oracle.predict(u=None if control is None else control[b, t])
            oracle.update(true[b, t])
            weight = np.mean(np.diag(oracle.K))
            loss[b, t] = weight * np.abs(true[b, t] - np.asarray(H) @ oracle.x)
        covariances.append(oracle.P)
    return loss, np.array(covariances)


def innovation_nll(series, F, H, Q, R, mask=None, drift=None):
    """Mean over the entries after the first n steps, by filterpy's log-likelihood."""
    total, count = 0.0, 0
    n = len(F)
    for b in range(len(series)):
        oracle = _filter(F, H, Q, R, 1e6 * np.eye(n), np.eye(n))
        seen = 0
        for t in range(series.shape[1]):
            if mask is not None and not mask[b, t]:
                continue
            oracle.predict(u=np.zeros(n) if drift is None else drift[b, t])
            oracle.update(series[b, t])
            seen += 1
            if seen > n:
                total -= oracle.log_likelihood
                count += series.shape[2]
    return total / count


def series_gains(series, P, Q, R, forgetting, mask=None, drift=None):
    """Gain of every entry and the final P and R of each sequence, (B, C), by loops."""
    batch, steps, channels = series.shape
    gains = np.zeros_like(series)
    final_P, final_R = np.zeros((batch, channels)), np.zeros((batch, channels))
    one = np.eye(1)
    for b in range(batch):
        for c in range(channels):
            oracle = _filter(one, one, one * Q[c], one * R[c], one * P[c], one)
            started = False
            for t in range(steps):
                if mask is not None and not mask[b, t]:
                    continue
                z = series[b, t, c]
                oracle.predict(u=np.array([0 if drift is None else drift[b, t, c]]))
                if started:
                    x, P_prior = oracle.x.copy(), oracle.P.copy()
                    oracle.update(z)
                    new = (z - oracle.x) ** 2 + oracle.P
                    oracle.R = forgetting * oracle.R + (1 - forgetting) * new
                    oracle.x, oracle.P = x, P_prior
                else:
                    oracle.x = np.array([z])
                oracle.update(z)
                gains[b, t, c] = oracle.K[0, 0]
                started = True
            final_P[b, c], final_R[b, c] = oracle.P[0, 0], oracle.R[0, 0]
    return gains, final_P, final_R


def adaptive_dynamic_loss(pred, true, gain, mask=None):
    """Loss of every entry, by loops."""
    loss = np.zeros_like(true)
    for b in range(len(true)):
        for c in range(true.shape[2]):
            previous = 0.0
            for t in range(true.shape[1]):
                if mask is not None and not mask[b, t]:
                    continue
                error = (true[b, t, c] - pred[b, t, c]) ** 2
                K = gain[b, t, c]
                loss[b, t, c] = K * error + (1 - K) * previous
                previous = error
    return loss


def forecast_errors(forecast, target, train, lag):
    """MSE, MAE and MASE by loops; ``train`` is the part that scales MASE, (T, C)."""
    squared, absolute, scaled = [], [], []
    for c in range(train.shape[1]):
        naive = [abs(train[t, c] - train[t - lag, c]) for t in range(lag, len(train))]
        scale = sum(naive) / len(naive)
        for window in range(len(target)):
            for step in range(target.shape[1]):
                error = abs(target[window, step, c] - forecast[window, step, c])
                squared.append(error**2)
                absolute.append(error)
                scaled.append(error / scale)
    return {
        name: sum(values) / len(values)
        for name, values in (('MSE', squared), ('MAE', absolute), ('MASE', scaled))
    }


def _box_iou(a, b):
    """IoU of two (x, y, w, h) boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def _interpolated_ap(hits, num_truth):
    """AP at 101 recalls, as NumPy spaces them, of ranked hits (True, False)."""
    points, true = [], 0
    for rank, hit in enumerate(hits, start=1):
        true += hit
        points.append((true / num_truth, true / rank))
    total = 0.0
    for recall in np.linspace(0, 1, 101):
        reached = [p for r, p in points if r >= recall]
        total += max(reached, default=0.0)
    return total / 101


def lvis_average_precision(document, detections, mode, classes=None, limit=10000):
    """Box AP over IoU 0.50:0.95 by loops, in one of three ways, -1 without truth.

    ``mode``: 'standard' (300 strongest detections an image, mean over classes),
    'fixed' (``limit`` strongest a class instead), 'pool' (as 'fixed', but one ranking
    of all classes). ``classes``: category ids to average over or pool; None for all.
    """
    if classes is None:
        classes = [c['id'] for c in document['categories']]
    kept = []
    key = 'image_id' if mode == 'standard' else 'category_id'
    most = 300 if mode == 'standard' else limit
    for value in {d[key] for d in detections}:
        same = [d for d in detections if d[key] == value]
        kept += sorted(same, key=lambda d: -d['score'])[:most]

    thresholds = [0.5 + 0.05 * k for k in range(10)]
    of_class = []
    for threshold in thresholds:
        aps, pool, pool_truth = [], [], 0
        for c in classes:
            ranked, truth = _match_class(document, kept, c, threshold)
            pool, pool_truth = pool + ranked, pool_truth + truth
            if truth:
                hits = [h for _, h in sorted(ranked, key=lambda r: -r[0])]
                aps.append(_interpolated_ap(hits, truth))
        if mode == 'pool' and pool_truth:
            hits = [h for _, h in sorted(pool, key=lambda r: -r[0])]
            aps = [_interpolated_ap(hits, pool_truth)]
        of_class += aps
    return sum(of_class) / len(of_class) if of_class else -1.0


def _match_class(document, detections, category, threshold):
    """(score, hit) of each detection of a class that counts, and the boxes to find."""
    ranked, truth = [], 0
    for image in document['images']:
        boxes = [
            a['bbox']
            for a in document['annotations']
            if (a['image_id'], a['category_id']) == (image['id'], category)
        ]
        truth += len(boxes)
        if not boxes and category not in image['neg_category_ids']:
            continue
        free = set(range(len(boxes)))
        found = [
            d
            for d in detections
            if (d['image_id'], d['category_id']) == (image['id'], category)
        ]
        for d in sorted(found, key=lambda d: -d['score']):
            overlaps = [(_box_iou(d['bbox'], boxes[k]), k) for k in free]
            best = max(overlaps, default=(0.0, -1))
            if best[0] >= threshold - 1e-12:
                free.remove(best[1])
                ranked.append((d['score'], True))
            elif category not in image['not_exhaustive_category_ids']:
                ranked.append((d['score'], False))
    return ranked, truth


# --- box losses and their filters -----------------------------------------------------
class ResidualFilters:
    """Filters of slots in matrices, one measurement after the other, in plain loops."""

    def __init__(self, group_of, level_of, full, q, r, p0, forgetting, prior, n=4):
        self.group_of, self.level_of, self.full, self.n = group_of, level_of, full, n
        self.q, self.r, self.p0 = q * np.eye(n), r, p0 * np.eye(n)
        self.forgetting, self.prior = forgetting, prior
        self.time = 0
        # Of each slot: x, P, time, and the noise with its number; of each group all
        # that it has measured.
        self.slots = {}
        self.history = {g: [] for g in set(group_of)}

    def mean_of(self, groups, terms, other, strength):
        """Mean over what groups have measured, and of ``other`` as so many terms."""
        total, count = strength * other, strength
        for group in groups:
            for measured in self.history[group]:
                share = self.forgetting ** (self.time - measured['time'])
                total = total + share * measured[terms[0]]
                count = count + share * measured[terms[1]]
        return total / count

    def group_mean(self, group, terms, prior, strength):
        """Mean of a group with that of its level, and of this with the prior."""
        groups = [g for g in self.history if self.level_of[g] == self.level_of[group]]
        level = self.mean_of(groups, terms, prior, self.forgetting**self.time)
        if np.isinf(strength):
            return level
        return self.mean_of([group], terms, level, strength)

    def own_share(self, slot):
        """How much of a slot is its own."""
        if slot not in self.slots:
            return 0.0
        return self.forgetting ** (self.time - self.slots[slot]['time'])

    def state(self, slot):
        """x and P of a slot."""
        group = self.group_of[slot]
        x = self.group_mean(group, ('x', 'one'), np.zeros(self.n), 1.0)
        P = self.group_mean(group, ('P', 'one'), self.p0, 1.0)
        share = self.own_share(slot)
        if share:
            x = (1 - share) * x + share * self.slots[slot]['x']
            P = (1 - share) * P + share * self.slots[slot]['P']
        return x, P

    def R(self, slot):
        """Measurement noise of a slot."""
        if self.r is not None:
            return self.r * np.eye(self.n)
        terms = 'noise', 'number'
        noise = self.group_mean(self.group_of[slot], terms, self.p0, self.prior)
        if np.isinf(self.prior):
            return noise
        share = self.own_share(slot)
        own, number = np.zeros((self.n, self.n)), 0.0
        if share:
            own = share * self.slots[slot]['noise sum']
            number = share * self.slots[slot]['noise count']
        return (self.prior * noise + own) / (self.prior + number)

    def step(self, measurements):
        """Take the (slot, residual) pairs of an iteration."""
        by_slot = {}
        for slot, z in measurements:
            by_slot.setdefault(slot, []).append(np.asarray(z, dtype=np.float64))
        new = {}
        for slot, zs in by_slot.items():
            x, P = self.state(slot)
            R = self.R(slot)
            P = P + self.q
            for z in zs:
                K = P @ np.linalg.inv(P + R)
                x = x + K @ (z - x)
                P = (np.eye(self.n) - K) @ P
            noise = sum(np.outer(z - x, z - x) + P for z in zs)
            if not self.full:
                noise = np.diag(np.diag(noise))
            kept = self.forgetting * self.own_share(slot)
            old = self.slots.get(slot, {'noise sum': 0.0, 'noise count': 0.0})
            new[slot] = {
                'x': x,
                'P': P,
                'noise': noise,
                'number': len(zs),
                'one': 1.0,
                'noise sum': kept * old['noise sum'] + noise,
                'noise count': kept * old['noise count'] + len(zs),
                'time': self.time + 1,
            }
        self.slots |= new
        for slot, measured in new.items():
            self.history[self.group_of[slot]].append(measured)
        self.time += 1

    def weights(self, slots, normalize, max_weight=np.inf):
        """1/sqrt(det P) of slots."""
        w = np.array([1 / np.sqrt(np.linalg.det(self.state(s)[1])) for s in slots])
        if normalize == 'mean':
            w = w / w.mean()
        return np.minimum(w, max_weight)


def smooth_l1(pred, target, beta):
    """Value and derivative of Smooth L1, number by number; beta = 0 is L1."""
    pred, target = np.asarray(pred, float), np.asarray(target, float)
    loss, grad = np.zeros_like(pred), np.zeros_like(pred)
    for i in np.ndindex(pred.shape):
        d = pred[i] - target[i]
        if abs(d) < beta:
            loss[i], grad[i] = 0.5 * d * d / beta, d / beta
        else:
            loss[i], grad[i] = abs(d) - 0.5 * beta, np.sign(d)
    return loss, grad


# --- baselines of the benchmark -------------------------------------------------------
def class_balanced_weights(counts, beta):
    """Inverse effective numbers by their geometric sums, scaled to a mean of 1."""
    inverse = [1 / sum(beta**k for k in range(max(n, 1))) for n in counts]
    return np.array(inverse) * len(counts) / sum(inverse)


def equalized_focal(logits, labels, ratio, gamma, scale, alpha):
    """Loss and derivative of every entry, by loops over rows and classes."""
    logits = np.asarray(logits, dtype=np.float64)
    loss, grad = np.zeros_like(logits), np.zeros_like(logits)
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            positive = labels[i] == j
            sign = 1.0 if positive else -1.0
            share = alpha if positive else 1 - alpha
            focus = gamma + scale * (1 - ratio[j])
            pt, miss = sigmoid(sign * logits[i, j]), sigmoid(-sign * logits[i, j])
            log_pt = -softplus(-sign * logits[i, j])
            factor = share * focus / gamma * miss**focus
            loss[i, j] = -factor * log_pt
            grad[i, j] = sign * factor * (focus * pt * log_pt - miss)
    return loss, grad


# --- crowd counting -------------------------------------------------------------------
def head_sigmas(points, beta, neighbors, alone, smallest):
    """Standard deviation of each head from all pairwise distances."""
    points = np.asarray(points, dtype=np.float64)
    sigmas = []
    for i, p in enumerate(points):
        others = sorted(np.hypot(*(p - q)) for j, q in enumerate(points) if j != i)[
            :neighbors
        ]
        sigma = beta * sum(others) / len(others) if others else alone
        sigmas.append(max(sigma, smallest))
    return np.array(sigmas)


def density_map(points, sigmas, height, width, truncate=4.0):
    """Gaussians, each cut off at a square and of sum 1 in the image, by loops."""
    total = np.zeros((height, width))
    for (x, y), sigma in zip(points, sigmas, strict=True):
        own = np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                dx, dy = abs(column - x), abs(row - y)
                # The pixel that holds the head counts however small sigma is.
                near_x = dx <= truncate * sigma or column == round(x)
                near_y = dy <= truncate * sigma or row == round(y)
                if near_x and near_y:
                    own[row, column] = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        total += own / own.sum()
    return total


def density_nuclear_norm_loss(maps, shapes, kind, min_norm):
    """Mean over maps, each cut to its shape, with numpy's SVD."""
    values = []
    for density, (rows, columns) in zip(maps, shapes, strict=True):
        D = np.asarray(density, dtype=np.float64)[:rows, :columns]
        norm = np.linalg.svd(D, compute_uv=False).sum()
        if kind == 'raw':
            values.append(-norm)
            continue
        frobenius = np.sqrt((D**2).sum())
        if frobenius == 0:
            values.append(0.0)
            continue
        ratio = norm / (np.sqrt(min(rows, columns)) * frobenius)
        values.append(min(1.0, frobenius / min_norm) * (1 - ratio))
    return np.mean(values)


def count_errors(predicted, truth):
    """MAE, RMSE and bias, by a loop."""
    n = len(truth)
    errors = [float(p) - float(t) for p, t in zip(predicted, truth, strict=True)]
    return {
        'MAE': sum(abs(e) for e in errors) / n,
        'RMSE': (sum(e * e for e in errors) / n) ** 0.5,
        'bias': sum(errors) / n,
    }
