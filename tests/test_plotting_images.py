"""Pages of images: a strip for each name, in reading order."""

import numpy as np
import torch

from flowlab.plotting.images import pages


def test_a_page_has_a_strip_for_each_name_and_keeps_the_order():
    rows = {"real": torch.rand(40, 196), "written": torch.rand(200, 784)}
    figure = pages(rows, columns=20)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(rows)
    real = np.asarray(figure.axes[0].images[0].get_array())
    assert real.shape == (2 * 16, 20 * 16), "two lines of twenty, each image framed by one pixel"
    third_of_second_line = real[17:31, 2 * 16 + 1 : 3 * 16 - 1]
    assert np.allclose(third_of_second_line, rows["real"][22].reshape(14, 14))
    assert figure.axes[1].images[0].get_array().shape == (3 * 30, 20 * 30), "sixty images at most"
