import io

from daal_mmdet import progress
from daal_mmdet.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_whole_lines_and_few_of_them(monkeypatch):
    monkeypatch.setattr(progress, '_SECONDS_BETWEEN_LINES', 1000.0)
    out = io.StringIO()
    with progress_bar(total=500, desc='Working', file=out) as bar:
        for _ in range(500):
            bar.update()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert '\r' not in out.getvalue()
    assert lines[0].startswith('Working:   0%')
    assert lines[1].startswith('Working: 100%')
    assert '500/500' in lines[1]


def test_a_file_gets_a_line_as_often_as_promised(monkeypatch):
    monkeypatch.setattr(progress, '_SECONDS_BETWEEN_LINES', 0.0)
    out = io.StringIO()
    with progress_bar(total=3, desc='Working', file=out) as bar:
        for _ in range(3):
            bar.update()
    shown = [line.split()[1].split('|')[0] for line in out.getvalue().splitlines()]
    assert shown == ['0%', '33%', '67%', '100%', '100%']


def test_fractions_of_a_unit_show(monkeypatch):
    monkeypatch.setattr(progress, '_SECONDS_BETWEEN_LINES', 0.0)
    out = io.StringIO()
    with progress_bar(total=1.0, desc='Working', file=out) as bar:
        for share in (0.25, 0.0, 0.25, 0.5):
            bar.update(share)
    shown = [line.split()[1].split('|')[0] for line in out.getvalue().splitlines()]
    assert shown == ['0%', '25%', '25%', '50%', '100%', '100%']


def test_a_terminal_gets_one_line_that_is_overwritten():
    out = Terminal()
    with progress_bar(total=3, desc='Working', file=out) as bar:
        for _ in range(3):
            bar.update()
    assert out.getvalue().count('\n') == 1
    assert '\r' in out.getvalue()
    assert 'Working: 100%' in out.getvalue()


def test_the_time_left_leaves_out_what_was_done_before():
    out = io.StringIO()
    with progress_bar(total=1, initial=0.5, desc='Working', file=out) as bar:
        bar.start_t -= 60
        bar.update(0.25)
    last = out.getvalue().splitlines()[-1]
    assert last.startswith('Working:  75%')
    assert '[01:00<01:00' in last


def test_disabled_prints_nothing():
    out = io.StringIO()
    with progress_bar(total=3, desc='Working', disable=True, file=out) as bar:
        bar.update(3)
    assert out.getvalue() == ''
