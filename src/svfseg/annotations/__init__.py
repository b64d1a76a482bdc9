"""What people draw and programs read: images, masks, marks and the files that hold them."""
