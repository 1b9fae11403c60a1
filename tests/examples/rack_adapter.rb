# Calls a Rack app: a line of JSON in for each request, one out for each answer.
require "json"
require "stringio"

def run(app)
  $app = app
end

load ARGV.fetch(0)
$stdout.sync = true
$stdin.each_line do |line|
  given = JSON.parse(line)
  env = given["headers"].to_h { |name, value| ["HTTP_#{name.upcase.tr("-", "_")}", value] }
  env["rack.input"] = StringIO.new(given["body"].unpack1("m"))
  puts "=#{$app.call(env).first}"
end
