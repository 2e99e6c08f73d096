"""Damaged text of Xen's console, which its parsers must take without an error."""

from hypothesis import strategies as st


@st.composite
def damaged(draw, lines, *, most):
    """Make a text of at most `most` of the lines, with some characters replaced and some taken out."""
    text = "".join(f"(XEN) {draw(st.sampled_from(lines))}\n" for _ in range(draw(st.integers(1, most))))
    places = st.integers(0, len(text) - 1)
    for at, letter in draw(
        st.lists(st.tuples(places, st.sampled_from("0f7x]:. \n") | st.just("")), max_size=6)
    ):
        text = text[:at] + letter + text[at + 1 :]
    return text
