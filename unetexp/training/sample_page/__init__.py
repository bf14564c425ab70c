"""A page of pictures: samples of a data set and what augmentation makes of them."""
