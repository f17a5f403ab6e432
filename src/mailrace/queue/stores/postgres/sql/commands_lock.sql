-- lock: table (readers go on); guard: a number that is seen has none below it still to come
LOCK TABLE mailrace.commands IN SHARE ROW EXCLUSIVE MODE
