"""The pages, a module for each subject. Views are declared with router.admin.page.page."""
